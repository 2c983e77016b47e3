#include "ringlet/pipeline/stable_diffusion/stable_diffusion_files.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/formats/readable_weights.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/checkpoint_parts.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

/// Pipeline classes of diffusers whose parts are those of Stable Diffusion 1, 2 or XL.
bool is_known_pipeline(const std::string& name) {
  static constexpr std::array kKnown = {
      "StableDiffusionPipeline",          "StableDiffusionImg2ImgPipeline",
      "StableDiffusionInpaintPipeline",   "StableDiffusionXLPipeline",
      "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline",
      "LatentConsistencyModelPipeline"};
  return std::ranges::find(kKnown, name) != kKnown.end();
}

/// What the parts say about the generation of the model.
std::string folder_kind(const StableDiffusionFiles& files) {
  if (files.sdxl()) return "Stable Diffusion XL";
  const ModelComponent& unet = files.parts.at("unet");
  const bool linear = json_value(unet.config, "use_linear_projection", false, unet.where);
  return linear ? "Stable Diffusion 2" : "Stable Diffusion 1";
}

/// Text encoders of Stable Diffusion 2 are OpenCLIP's of another size, without their last layer:
/// they come with the model.
CheckpointFamily family_of(const std::string& kind, bool sdxl,
                           const formats::LatentScale& latents) {
  CheckpointFamily family{.name = kind, .latents = latents};
  using enum formats::TextEncoderKind;
  if (!kind.starts_with("Stable Diffusion 2"))
    family.text.push_back({clip_l, "text_encoder", "tokenizer"});
  if (sdxl) family.text.push_back({clip_g, "text_encoder_2", "tokenizer_2"});
  family.projection = formats::ClipProjection::none;
  return family;
}

CheckpointFamily family_of(const formats::SingleFileModel& model) {
  return family_of(model.kind, model.sdxl(), model.latents);
}

/// The schedule as ModelFileOptions::zero_terminal_snr asks for it.
void rescale(StableDiffusionFiles& files, const ModelFileOptions& options) {
  if (!options.zero_terminal_snr) return;
  const auto type =
      json_value<std::string>(files.scheduler, "prediction_type", "epsilon", files.scheduler_where);
  if (diffusion::prediction_from_name(type, files.scheduler_where) ==
      diffusion::Prediction::epsilon)
    throw Error(ErrorCode::invalid_argument, Field("zero_terminal_snr"),
                "the model predicts epsilon, which says nothing where there is pure noise",
                "it is for models that predict v: give `prediction=v` where the files are wrong");
  files.scheduler["rescale_betas_zero_snr"] = true;
  files.scheduler["timestep_spacing"] = "trailing";  // others leave the last level out
}

StableDiffusionFiles find_in_folder(const fs::path& root, const ModelFileOptions& options) {
  const std::string pipeline = pipeline_class(root);
  const fs::path index_path = root / "model_index.json";
  const std::string where = index_path.string();
  if (!is_known_pipeline(pipeline))
    throw Error(ErrorCode::unsupported, where, "the model is a " + pipeline,
                "ringlet supports Stable Diffusion 1, 2 and XL");
  const Json index = read_json_file(index_path);

  std::vector<FolderPart> parts = {{"unet", NetworkRole::denoiser},
                                   {"vae", NetworkRole::autoencoder},
                                   {"text_encoder", NetworkRole::text_encoder, "tokenizer"}};
  if (has_part(index, "text_encoder_2"))
    parts.push_back({"text_encoder_2", NetworkRole::text_encoder, "tokenizer_2"});
  StableDiffusionFiles files;
  open_folder(files, root, index, parts, options);
  use_given_parts(files, options,
                  family_of(folder_kind(files), files.sdxl(),
                            files.sdxl() ? formats::stable_diffusion_xl_scale()
                                         : formats::stable_diffusion_scale()));
  files.prediction_source = files.scheduler.contains("prediction_type")
                                ? "scheduler_config.json"
                                : "assumed: scheduler_config.json does not say it";
  if (options.prediction) {
    files.scheduler["prediction_type"] = diffusion::prediction_name(*options.prediction);
    files.prediction_source = "`prediction`";
  }
  rescale(files, options);
  const ModelComponent& unet = files.parts.at("unet");
  files.zero_empty_negative = json_value(index, "force_zeros_for_empty_prompt", false, where);
  files.inpainting = json_value(unet.config, "in_channels", 4, unet.where) == 9;
  files.kind = folder_kind(files) + (files.inpainting ? " inpainting" : "");
  return files;
}

/// What a user should know who is not asked: a contradiction, or a guess.
void log_prediction(const formats::SingleFileModel& model, const std::string& where) {
  const formats::CheckpointPrediction& prediction = model.prediction;
  for (const std::string& note : prediction.notes) log(LogLevel::warning, where + ": " + note);
  // All but Stable Diffusion 2 predict epsilon where they say nothing, as everybody expects.
  log(prediction.stated || !model.open_clip ? LogLevel::debug : LogLevel::info,
      where + ": predicts " + prediction.type + " (" + prediction.source + ")");
}

StableDiffusionFiles find_single_file(const fs::path& path, const ModelFileOptions& options) {
  const auto file = options.single_file ? options.single_file : io::SafetensorsFile::open(path);
  formats::SingleFileModel model = read_single_file(
      file, options.prediction,
      {.text_encoders = !options.text_encoders.empty(), .vae = !options.vae.empty()});

  StableDiffusionFiles files;
  files.path = path;
  files.name = path.stem().string();
  files.kind = model.kind;
  files.inpainting = model.inpainting;
  files.zero_empty_negative = model.sdxl();
  const std::string where = path.string();
  const auto add = [&](const char* name, NetworkRole role, formats::SingleFileComponent& part) {
    if (part.weights != nullptr)
      files.parts[name] = {role, std::move(part.config), where, std::move(part.weights)};
  };
  if (model.sdxl()) add("text_encoder_2", NetworkRole::text_encoder, model.text_encoder_2);
  add("unet", NetworkRole::denoiser, model.unet);
  add("vae", NetworkRole::autoencoder, model.vae);
  add("text_encoder", NetworkRole::text_encoder, model.text_encoder);
  const CheckpointFamily family = family_of(model);
  use_given_parts(files, options, family);
  require_parts(files, family);
  const fs::path tokenizer = single_file_tokenizer(path, options.tokenizer);
  files.tokenizers["tokenizer"] = {tokenizer, model.open_clip ? kOpenClipPadding : ""};
  if (files.sdxl()) files.tokenizers["tokenizer_2"] = {tokenizer, kOpenClipPadding};
  files.scheduler = std::move(model.scheduler);
  files.scheduler_where = where;
  files.prediction_source = model.prediction.source;
  rescale(files, options);
  log_prediction(model, where);
  files.hash_files = {path};
  files.ignored = std::move(model.ignored);
  if (!files.ignored.empty())
    log(LogLevel::debug, where + ": " + std::to_string(files.ignored.size()) +
                             " tensors outside the model are ignored, for example " +
                             files.ignored.front());
  return files;
}

}  // namespace

bool is_stable_diffusion_folder(const fs::path& folder) {
  return fs::exists(folder / "model_index.json") && is_known_pipeline(pipeline_class(folder));
}

bool is_stable_diffusion_file(const std::shared_ptr<const io::SafetensorsFile>& file) {
  return formats::is_single_file_model(nn::FileStore(std::vector{file})) &&
         !has_original_transformer(*file, formats::TransformerFamily::flux) &&
         !has_original_transformer(*file, formats::TransformerFamily::stable_diffusion_3);
}

formats::SingleFileModel read_single_file(const std::shared_ptr<const io::SafetensorsFile>& file,
                                          std::optional<diffusion::Prediction> prediction,
                                          const formats::PartsElsewhere& elsewhere) {
  const auto store = formats::readable_weights(std::make_shared<nn::FileStore>(std::vector{file}));
  return formats::open_single_file(
      store, file->metadata(),
      {.chosen = prediction, .configuration = formats::configuration_beside(file->path())},
      elsewhere);
}

StableDiffusionFiles find_stable_diffusion(const fs::path& path, const ModelFileOptions& options) {
  return nn::with_ringlet_errors(path.string(), [&] {
    check_model_path(path, options);
    return fs::is_directory(path) ? find_in_folder(path, options) : find_single_file(path, options);
  });
}

}  // namespace ringlet::pipeline
