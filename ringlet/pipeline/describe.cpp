#include "ringlet/pipeline/describe.h"

#include <algorithm>
#include <map>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/diffusion/sampler_table.h"
#include "ringlet/formats/adapter_kind.h"
#include "ringlet/formats/single_file.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/models/published_layout.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;
using Files = std::vector<std::shared_ptr<const io::SafetensorsFile>>;

/// Sums over tensors.
struct Content {
  std::int64_t parameters = 0;
  std::int64_t tensors = 0;
  std::uint64_t bytes = 0;
  std::map<std::string, std::int64_t> dtypes;

  void add(const io::TensorInfo& info) {
    parameters += info.elements();
    ++tensors;
    bytes += info.end - info.begin;
    dtypes[std::string(io::to_string(info.dtype))] += info.elements();
  }
  Json json(const std::string& name) const {
    return {{"name", name},
            {"parameters", parameters},
            {"tensors", tensors},
            {"bytes", bytes},
            {"dtypes", dtypes}};
  }
};

/// The part of a single-file checkpoint that a tensor belongs to.
std::string checkpoint_part(const std::string& name) {
  static const std::vector<std::pair<std::string, std::string>> kParts = {
      {"model.diffusion_model.", "unet"},
      {"first_stage_model.", "vae"},
      {"cond_stage_model.", "text_encoder"},
      {"conditioner.embedders.0.", "text_encoder"},
      {"conditioner.embedders.1.", "text_encoder_2"}};
  for (const auto& [prefix, part] : kParts)
    if (name.starts_with(prefix)) return part;
  return "other";
}

Json components_of(const io::SafetensorsFile& file, bool checkpoint) {
  std::map<std::string, Content> parts;
  for (const io::TensorInfo& info : file.tensors())
    parts[checkpoint ? checkpoint_part(info.name) : formats::adapter_component(info.name)].add(
        info);
  Json components = Json::array();
  for (const auto& [name, content] : parts) components.push_back(content.json(name));
  return components;
}

/// What is predicted, the noise schedule and the model's own sampler. A schedule that ringlet does
/// not know is a note: what the file holds can be told all the same.
void add_schedule(Json& out, const Json& scheduler, const std::string& where,
                  const std::string& prediction_source) {
  out["prediction"] = {
      {"type", json_value<std::string>(scheduler, "prediction_type", "epsilon", where)},
      {"source", prediction_source}};
  try {
    const auto config = diffusion::ScheduleConfig::from_json(scheduler, where);
    const diffusion::SamplerChoice sampler = diffusion::default_sampler(config);
    const auto spacing = diffusion::default_spacing(config, sampler.entry->grid);
    out["prediction"]["type"] = diffusion::prediction_name(config.prediction);
    out["sampler"] = sampler.name();
    out["schedule"] = {{"training_steps", config.training_steps},
                       {"beta_schedule", config.beta_schedule},
                       {"beta_start", config.beta_start},
                       {"beta_end", config.beta_end},
                       {"zero_terminal_snr", config.zero_terminal_snr},
                       {"terminal_snr", diffusion::Schedule(config).terminal_snr()},
                       {"spacing", diffusion::spacing_name(config.spacing.value_or(spacing))}};
    if (!config.trained_betas.empty()) out["schedule"]["beta_schedule"] = "trained_betas";
  } catch (const Error& error) {
    out["notes"].push_back(std::string("pictures cannot be made with it: ") + error.what());
  }
}

Json describe_file(const fs::path& path) {
  if (path.extension() == ".json" && path.stem().extension() == ".index")
    return describe(path.has_parent_path() ? path.parent_path() : fs::path("."));
  const auto file = io::SafetensorsFile::open(path);
  const auto store = std::make_shared<nn::FileStore>(Files{file});
  Json out = {{"path", path.string()}, {"metadata", file->metadata()}, {"notes", Json::array()}};
  if (formats::is_single_file_model(*store)) {
    const formats::SingleFileModel model = read_single_file(file);
    out["kind"] = model.kind + " checkpoint";
    out["components"] = components_of(*file, true);
    for (const std::string& note : model.prediction.notes) out["notes"].push_back(note);
    add_schedule(out, model.scheduler, path.string(), model.prediction.source);
    if (out.contains("schedule"))
      out["schedule"]["source"] = model.prediction.snr_source.empty()
                                      ? "assumed: that of all Stable Diffusion models"
                                      : model.prediction.snr_source;
    if (!model.ignored.empty())
      out["notes"].push_back(std::to_string(model.ignored.size()) +
                             " tensors outside the model are ignored");
    return out;
  }
  out["kind"] = formats::file_kind(*file);
  out["components"] = components_of(*file, false);
  return out;
}

/// A weight file, or the shards of an index.
Content content_of(const fs::path& weights) {
  Content content;
  const auto store = nn::FileStore::open(weights);
  for (const auto& file : store->files())
    for (const io::TensorInfo& info : file->tensors()) content.add(info);
  return content;
}

Json describe_model_folder(const fs::path& root, const std::string& variant) {
  ModelFileOptions options;
  options.variant = variant;
  const ModelFiles files = find_model(root, options);
  Json out = {{"path", root.string()}, {"kind", files.kind + " model folder"}};
  Json components = Json::array();
  for (const auto& [name, base] :
       std::vector<std::pair<std::string, std::string>>{{"unet", "diffusion_pytorch_model"},
                                                        {"vae", "diffusion_pytorch_model"},
                                                        {"text_encoder", "model"},
                                                        {"text_encoder_2", "model"}})
    if (name != "text_encoder_2" || files.sdxl())
      components.push_back(content_of(find_weights(root / name, base, variant)).json(name));
  out["components"] = components;
  out["metadata"] = Json::object();
  out["notes"] = Json::array();
  add_schedule(out, files.scheduler, files.scheduler_where, files.prediction_source);
  if (out.contains("schedule")) out["schedule"]["source"] = "scheduler_config.json";
  return out;
}

Json describe_any(const fs::path& path, const std::string& variant) {
  if (!fs::exists(path))
    throw Error(ErrorCode::not_found, path.string(), "there is no such file or folder");
  if (!fs::is_directory(path)) return describe_file(path);
  if (fs::exists(path / "model_index.json")) return describe_model_folder(path, variant);

  std::vector<fs::path> weights;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.path().extension() == ".safetensors") weights.push_back(entry.path());
  if (weights.empty())
    throw Error(ErrorCode::not_found, path.string(), "there is nothing here that ringlet knows",
                "name a model folder (with model_index.json) or a .safetensors file");
  std::ranges::sort(weights);
  Json out = {{"path", path.string()},
              {"kind", "weights of one network"},
              {"metadata", Json::object()},
              {"notes", Json::array()}};
  if (fs::exists(path / "adapter_config.json")) out["kind"] = "adapter folder (PEFT)";
  if (const fs::path config = path / "config.json"; fs::exists(config)) {
    const std::string type = models::network_type(read_json_file(config));
    if (!type.empty()) out["kind"] = "network of the kind " + type;
  }
  Json components = Json::array();
  for (const fs::path& file : weights)
    components.push_back(content_of(file).json(file.filename().string()));
  out["components"] = components;
  return out;
}

}  // namespace

Json describe(const fs::path& path, const std::string& variant) {
  return nn::with_ringlet_errors(path.string(), [&] { return describe_any(path, variant); });
}

}  // namespace ringlet::pipeline
