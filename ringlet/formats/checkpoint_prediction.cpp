#include "ringlet/formats/checkpoint_prediction.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <sstream>
#include <string_view>
#include <utility>

#include <ATen/ops/std.h>

#include "ringlet/core/read_file.h"

namespace ringlet::formats {
namespace {

namespace fs = std::filesystem;
using diffusion::Prediction;

constexpr const char* kVMarker = "v_pred";
constexpr const char* kZeroSnrMarker = "ztsnr";

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

std::string trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(kBlank) - begin + 1));
}

/// A field's text; none where it is absent or, as Python writes it, None.
std::optional<std::string> field(const io::Metadata& metadata, const std::string& key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return std::nullopt;
  const std::string text = trimmed(found->second);
  if (text.empty() || lower(text) == "none" || lower(text) == "null") return std::nullopt;
  return text;
}

/// A truth value as Python, JSON and people write it; none for other texts.
std::optional<bool> flag(const io::Metadata& metadata, const std::string& key) {
  const auto text = field(metadata, key);
  if (!text) return std::nullopt;
  if (lower(*text) == "true" || *text == "1") return true;
  if (lower(*text) == "false" || *text == "0") return false;
  return std::nullopt;
}

/// The metadata's statements, the plainest first.
void add_metadata(const io::Metadata& metadata, std::vector<PredictionStatement>& statements) {
  // What "velocity" means depends on it: of a flow, it is no v.
  if (const auto process = field(metadata, "modelspec.noise_process");
      process && lower(*process).find("flow") != std::string::npos)
    statements.push_back({"the metadata modelspec.noise_process", *process});
  // ModelSpec (kohya, OneTrainer), ComfyUI, and the bare name that some trainers write.
  for (const char* key : {"modelspec.prediction_type", "modelspec.predict_key", "prediction_type"})
    if (const auto word = field(metadata, key))
      statements.push_back({std::string("the metadata ") + key, *word});
  if (const auto v = flag(metadata, "ss_v_parameterization"))
    statements.push_back({"the metadata ss_v_parameterization", *v ? "v" : "epsilon"});
  if (const auto v = flag(metadata, kVMarker))
    statements.push_back({"the metadata v_pred", *v ? "v" : "epsilon"});
  const auto architecture = field(metadata, "modelspec.architecture");
  if (architecture == "stable-diffusion-v2-768-v" || architecture == "stable-diffusion-v2-512")
    statements.push_back(
        {"the metadata modelspec.architecture", architecture->ends_with("-v") ? "v" : "epsilon"});
  const auto base = field(metadata, "ss_base_model_version");
  if (base && base->starts_with("sd_v") && base->ends_with("_v"))
    statements.push_back({"the metadata ss_base_model_version", "v"});
}

/// Stable Diffusion 2 comes as epsilon and as v model with the same shapes; the v models' last
/// norm has clearly larger biases. Found by others on the published checkpoints.
void tell_by_weights(const nn::TensorStore& store, CheckpointPrediction& out) {
  const std::string name =
      "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias";
  constexpr double kThreshold = 0.09;
  const auto bias = store.find(name, {}, {});
  if (!bias || bias->is_meta()) {
    out.type = "v_prediction";
    out.source = "assumed, as most models of Stable Diffusion 2 do";
    return;
  }
  const double deviation = bias->to(at::kFloat).std(/*unbiased=*/false).item<double>();
  out.type = deviation > kThreshold ? "v_prediction" : "epsilon";
  char text[160];
  std::snprintf(text, sizeof text,
                "assumed from the weights: the biases of the last attention norm deviate by %.3f, "
                "those of v models by more than %.2f",
                deviation, kThreshold);
  out.source = text;
}

std::string quoted(const PredictionStatement& statement) {
  return statement.source + " says \"" + statement.word + "\"";
}

/// Who else says something, and what.
void note_the_others(const std::vector<PredictionStatement>& statements,
                     CheckpointPrediction& out) {
  const auto taken = diffusion::find_prediction(out.type);
  for (const PredictionStatement& statement : statements) {
    if (statement.source == out.source) continue;
    const auto meant = diffusion::find_prediction(statement.word);
    if (meant && meant == taken) continue;
    out.notes.push_back(quoted(statement) + (meant ? ", but " : ", which is not known, and ") +
                        out.source + " says \"" + out.type + "\": taken for " + out.type);
  }
}

/// alpha^2 of the last training step as the file stores it, where it stores a schedule.
std::optional<double> stored_terminal_alpha(const nn::TensorStore& store, const char* name) {
  const auto stored = store.find(name, {}, {});
  if (!stored || stored->is_meta() || stored->dim() != 1 || stored->numel() < 2 ||
      !stored->is_floating_point())
    return std::nullopt;
  const bool alphas = std::string_view(name) == "alphas_cumprod";
  const double first = stored->to(at::kDouble)[0].item<double>();
  const double last = stored->to(at::kDouble)[-1].item<double>();
  // Merged checkpoints hold all kinds of numbers there: only a schedule that begins clean counts.
  if (alphas ? !(first > 0.9 && first < 1.0) : !(first > 0.0 && first < 0.4)) return std::nullopt;
  return alphas ? last : 1.0 / (1.0 + last * last);
}

void tell_terminal_snr(const nn::TensorStore& store, const io::Metadata& metadata,
                       CheckpointPrediction& out) {
  constexpr double kNone = 1e-5;  // alpha^2; Stable Diffusion's own schedule ends at 4.7e-3
  const auto in_metadata = flag(metadata, "ss_zero_terminal_snr");
  if (store.find(kZeroSnrMarker, {}, {})) {
    out.snr_source = "the tensor ztsnr";
    if (in_metadata == false)
      out.notes.emplace_back(
          "the metadata ss_zero_terminal_snr says \"False\", but the tensor ztsnr is there: taken "
          "for zero terminal SNR");
  } else if (in_metadata == true) {
    out.snr_source = "the metadata ss_zero_terminal_snr";
  } else {
    for (const char* name : {"alphas_cumprod", "denoiser.sigmas"})
      if (const auto alpha = stored_terminal_alpha(store, name); alpha && *alpha < kNone)
        out.snr_source = std::string("the tensor ") + name;
  }
  if (out.snr_source.empty()) return;
  out.zero_terminal_snr = diffusion::find_prediction(out.type) != Prediction::epsilon;
  if (out.zero_terminal_snr) return;
  out.notes.push_back(out.snr_source +
                      " says zero terminal SNR, from where an epsilon model cannot be sampled: "
                      "ignored; `prediction=v` says that it is not an epsilon model");
  out.snr_source.clear();
}

}  // namespace

bool is_prediction_marker(const std::string& tensor) {
  return tensor == kVMarker || tensor == kZeroSnrMarker;
}

CheckpointPrediction checkpoint_prediction(const nn::TensorStore& store, const LdmUNet& unet,
                                           const io::Metadata& metadata,
                                           const PredictionHints& hints) {
  std::vector<PredictionStatement> statements;
  if (hints.chosen)
    statements.push_back({"`prediction`", std::string(diffusion::prediction_name(*hints.chosen))});
  if (store.find(kVMarker, {}, {})) statements.push_back({"the tensor v_pred", "v_prediction"});
  if (hints.configuration) statements.push_back(*hints.configuration);
  add_metadata(metadata, statements);

  CheckpointPrediction out;
  constexpr std::int64_t kLatentChannels = 4;
  if (!statements.empty()) {
    const auto meant = diffusion::find_prediction(statements.front().word);
    out.type = meant ? diffusion::prediction_name(*meant) : statements.front().word;
    out.source = statements.front().source;
    out.stated = true;
    note_the_others(statements, out);
  } else if (unet.linear_projection && unet.label_width == 0 &&
             unet.in_channels == kLatentChannels) {  // those for inpainting predict epsilon
    tell_by_weights(store, out);
  } else {
    out.type = "epsilon";
    out.source = "assumed: the file says nothing else";
  }
  tell_terminal_snr(store, metadata, out);
  return out;
}

std::optional<PredictionStatement> configuration_beside(const fs::path& checkpoint) {
  constexpr std::uint64_t kMostBytes = 1u << 20;
  for (const char* extension : {".yaml", ".yml"}) {
    const fs::path path = fs::path(checkpoint).replace_extension(extension);
    if (!fs::is_regular_file(path)) continue;
    std::istringstream lines(read_file(path, kMostBytes));
    for (std::string line; std::getline(lines, line);) {
      line = trimmed(std::string_view(line).substr(0, line.find('#')));
      std::erase_if(line, [](char c) { return c == '"' || c == '\''; });
      const std::size_t colon = line.find(':');
      if (colon == std::string::npos) continue;
      const std::string value = trimmed(std::string_view(line).substr(colon + 1));
      if (line.starts_with("parameterization:"))
        return PredictionStatement{path.filename().string() + " beside the file", value};
      // sgm: the class VScaling, EpsScaling, …; those of EDM are no word that is known.
      constexpr std::string_view kScaling = ".denoiser_scaling.";
      const std::size_t scaling = value.find(kScaling);
      if (!line.starts_with("target:") || scaling == std::string::npos) continue;
      std::string name = value.substr(scaling + kScaling.size());
      if (name == "VScaling" || name == "EpsScaling") name.resize(name.find("Scaling"));
      return PredictionStatement{path.filename().string() + " beside the file", name};
    }
  }
  return std::nullopt;
}

}  // namespace ringlet::formats
