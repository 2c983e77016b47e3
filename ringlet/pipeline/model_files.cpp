#include "ringlet/pipeline/model_files.h"

#include <algorithm>
#include <array>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/random.h"
#include "ringlet/core/text.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConvertHint =
    "pickle files can run code when they are opened; convert once with Python: "
    "StableDiffusionPipeline.from_pretrained(FOLDER).save_pretrained(NEW, safe_serialization=True) "
    "or from_single_file(FILE).save_pretrained(NEW)";

/// OpenCLIP encoders (Stable Diffusion 2, the second of XL) were trained with this padding.
constexpr const char* kOpenClipPadding = "!";

bool is_pickle_name(const fs::path& path) {
  const std::string extension = path.extension().string();
  static constexpr std::array kExtensions = {".ckpt", ".bin", ".pt", ".pth", ".pkl"};
  return std::ranges::find(kExtensions, extension) != kExtensions.end();
}

/// Pipeline classes whose parts are those of Stable Diffusion 1, 2 or XL.
bool is_known_pipeline(const std::string& name) {
  static constexpr std::array kKnown = {
      "StableDiffusionPipeline",          "StableDiffusionImg2ImgPipeline",
      "StableDiffusionInpaintPipeline",   "StableDiffusionXLPipeline",
      "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline",
      "LatentConsistencyModelPipeline"};
  return std::ranges::find(kKnown, name) != kKnown.end();
}

bool is_present(const Json& index, const std::string& name) {
  const auto found = index.find(name);
  return found != index.end() && found->is_array() && found->size() == 2 && !(*found)[0].is_null();
}

bool has_files(const fs::path& folder, const std::string& base) {
  return std::ranges::any_of(fs::directory_iterator(folder), [&](const fs::directory_entry& entry) {
    return entry.path().filename().string().starts_with(base + ".");
  });
}

ModelComponent open_component(const fs::path& root, const std::string& name,
                              const std::string& base, const ModelFileOptions& options) {
  const fs::path folder = root / name;
  if (!fs::is_directory(folder))
    throw Error(ErrorCode::not_found, folder.string(), "the model's folder is missing",
                "model_index.json lists it; download the model again");
  const fs::path config = folder / "config.json";
  if (options.random_seed && !has_files(folder, base)) {
    const std::uint64_t seed = Random(*options.random_seed).stream("weights of " + name).next_u64();
    return {read_json_file(config), config.string(), std::make_shared<nn::RandomStore>(seed)};
  }
  return {read_json_file(config), config.string(),
          nn::FileStore::open(find_weights(folder, base, options.variant))};
}

/// A text encoder of a folder, under names with the level "text_model.".
ModelComponent open_text_encoder(const fs::path& root, const std::string& name,
                                 const ModelFileOptions& options) {
  ModelComponent part = open_component(root, name, "model", options);
  part.weights = formats::with_text_model_level(part.weights);
  return part;
}

fs::path tokenizer_folder(const fs::path& root, const std::string& name) {
  const fs::path folder = root / name;
  if (!fs::is_directory(folder))
    throw Error(ErrorCode::not_found, folder.string(), "the tokenizer's folder is missing",
                "download the model again");
  return folder;
}

/// What the parts say about the generation of the model.
std::string folder_kind(const ModelFiles& files) {
  if (files.sdxl()) return "Stable Diffusion XL";
  const bool linear =
      json_value(files.unet.config, "use_linear_projection", false, files.unet.where);
  return linear ? "Stable Diffusion 2" : "Stable Diffusion 1";
}

ModelFiles find_in_folder(const fs::path& root, const ModelFileOptions& options) {
  const fs::path index_path = root / "model_index.json";
  if (!fs::exists(index_path))
    throw Error(ErrorCode::not_found, root.string(), "there is no model_index.json",
                "give the top folder of a diffusers model, or a single .safetensors checkpoint");
  const Json index = read_json_file(index_path);
  const std::string where = index_path.string();
  const auto pipeline = json_require<std::string>(index, "_class_name", where);
  if (!is_known_pipeline(pipeline))
    throw Error(ErrorCode::unsupported, where, "the model is a " + pipeline,
                "ringlet knows Stable Diffusion 1, 2 and XL");
  for (const char* part : {"unet", "vae", "text_encoder", "tokenizer", "scheduler"})
    if (!is_present(index, part))
      throw Error(ErrorCode::unsupported, where,
                  std::string("the model has no part \"") + part + "\"");

  ModelFiles files;
  files.path = root;
  files.name = fs::absolute(root).lexically_normal().filename().string();
  if (files.name.empty())
    files.name = fs::absolute(root).lexically_normal().parent_path().filename().string();
  files.unet = open_component(root, "unet", "diffusion_pytorch_model", options);
  if (const auto* stored = dynamic_cast<const nn::FileStore*>(files.unet.weights.get()))
    for (const auto& file : stored->files()) files.unet_files.push_back(file->path());
  files.vae = open_component(root, "vae", "diffusion_pytorch_model", options);
  files.vae.weights = formats::with_current_attention_names(files.vae.weights);
  files.text_encoder = open_text_encoder(root, "text_encoder", options);
  files.tokenizer.folder = tokenizer_folder(root, "tokenizer");
  if (is_present(index, "text_encoder_2")) {
    files.text_encoder_2 = open_text_encoder(root, "text_encoder_2", options);
    files.tokenizer_2.folder = tokenizer_folder(root, "tokenizer_2");
  }
  const fs::path scheduler = root / "scheduler" / "scheduler_config.json";
  files.scheduler = read_json_file(scheduler);
  files.scheduler_where = scheduler.string();
  files.prediction_source = files.scheduler.contains("prediction_type")
                                ? "scheduler_config.json"
                                : "assumed: scheduler_config.json does not say it";
  if (options.prediction) {
    files.scheduler["prediction_type"] = diffusion::prediction_name(*options.prediction);
    files.prediction_source = "`prediction`";
  }
  files.zero_empty_negative = json_value(index, "force_zeros_for_empty_prompt", false, where);
  files.inpainting = json_value(files.unet.config, "in_channels", 4, files.unet.where) == 9;
  files.kind = folder_kind(files) + (files.inpainting ? " inpainting" : "");
  return files;
}

ModelComponent from_single_file(formats::SingleFileComponent part, const std::string& where) {
  return {std::move(part.config), where, std::move(part.weights)};
}

/// What a user should know who is not asked: a contradiction, or a guess.
void log_prediction(const formats::SingleFileModel& model, const std::string& where) {
  const formats::CheckpointPrediction& prediction = model.prediction;
  for (const std::string& note : prediction.notes) log(LogLevel::warning, where + ": " + note);
  // All but Stable Diffusion 2 predict epsilon where they say nothing, as everybody expects.
  log(prediction.stated || !model.open_clip ? LogLevel::debug : LogLevel::info,
      where + ": predicts " + prediction.type + " (" + prediction.source + ")");
}

ModelFiles find_single_file(const fs::path& path, const ModelFileOptions& options) {
  const auto file = options.single_file ? options.single_file : io::SafetensorsFile::open(path);
  formats::SingleFileModel model = read_single_file(file, options.prediction);

  ModelFiles files;
  files.path = path;
  files.name = path.stem().string();
  files.kind = model.kind;
  files.inpainting = model.inpainting;
  files.zero_empty_negative = model.sdxl();
  const std::string where = path.string();
  if (model.sdxl()) files.text_encoder_2 = from_single_file(std::move(model.text_encoder_2), where);
  files.unet = from_single_file(std::move(model.unet), where);
  files.vae = from_single_file(std::move(model.vae), where);
  files.text_encoder = from_single_file(std::move(model.text_encoder), where);
  files.tokenizer.folder = single_file_tokenizer(path, options.tokenizer);
  files.tokenizer_2 = {files.tokenizer.folder, kOpenClipPadding};
  if (model.open_clip) files.tokenizer.pad_token = kOpenClipPadding;
  files.scheduler = std::move(model.scheduler);
  files.scheduler_where = where;
  files.prediction_source = model.prediction.source;
  log_prediction(model, where);
  files.unet_files = {path};
  files.ignored = std::move(model.ignored);
  if (!files.ignored.empty())
    log(LogLevel::debug, where + ": " + std::to_string(files.ignored.size()) +
                             " tensors outside the model are ignored, for example " +
                             files.ignored.front());
  return files;
}

ModelFiles find(const fs::path& path, const ModelFileOptions& options) {
  if (path.empty())
    throw Error(ErrorCode::invalid_argument, Field("model"), "a model folder or file is needed");
  if (!fs::exists(path)) {
    const bool looks_like_hub = path.is_relative() && path.string().find('/') != std::string::npos;
    throw Error(ErrorCode::not_found, path.string(), "the model does not exist",
                looks_like_hub ? "ringlet does not download models: give a local folder" : "");
  }
  if (fs::is_directory(path)) {
    if (!options.tokenizer.empty())
      throw Error(ErrorCode::invalid_argument, Field("tokenizer"),
                  path.string() + " is a folder, which has a tokenizer of its own",
                  "leave it out; it is for single-file checkpoints");
    return find_in_folder(path, options);
  }
  if (!options.variant.empty())
    throw Error(ErrorCode::invalid_argument, Field("variant"),
                path.string() + " is one file: there are no others to prefer",
                "leave it out; it is for model folders");
  if (is_pickle_name(path))
    throw Error(ErrorCode::unsupported, path.string(), "ringlet reads safetensors only",
                kConvertHint);
  return find_single_file(path, options);
}

}  // namespace

formats::SingleFileModel read_single_file(const std::shared_ptr<const io::SafetensorsFile>& file,
                                          std::optional<diffusion::Prediction> prediction) {
  const auto store = std::make_shared<nn::FileStore>(
      std::vector<std::shared_ptr<const io::SafetensorsFile>>{file});
  return formats::open_single_file(
      store, file->metadata(),
      {.chosen = prediction, .configuration = formats::configuration_beside(file->path())});
}

fs::path single_file_tokenizer(const fs::path& file, const fs::path& given) {
  if (!given.empty()) return given;
  const fs::path beside = file.parent_path() / "tokenizer";
  if (fs::is_directory(beside)) return beside;
  throw Error(ErrorCode::not_found, file.string(),
              "a single-file checkpoint does not carry its tokenizer",
              "give `tokenizer=FOLDER` with CLIP's vocab.json and merges.txt (the folder "
              "\"tokenizer\" of any Stable Diffusion model), or put it beside the file");
}

fs::path find_weights(const fs::path& folder, const std::string& base, const std::string& variant) {
  // The asked-for variant first, then plain files, then fp16.
  std::vector<std::string> variants;
  for (const std::string& name : {variant, std::string(), std::string("fp16")})
    if (std::ranges::find(variants, name) == variants.end()) variants.push_back(name);
  for (const std::string& name : variants) {
    const std::string dotted = name.empty() ? "" : "." + name;
    for (const std::string& file :
         {base + dotted + ".safetensors", base + ".safetensors.index" + dotted + ".json",
          base + ".safetensors" + dotted + ".index.json"}) {
      if (!fs::exists(folder / file)) continue;
      if (!variant.empty() && name != variant)
        log(LogLevel::warning,
            folder.string() + " has no \"" + variant + "\" weights; using " + file);
      return folder / file;
    }
  }
  for (const auto& entry : fs::directory_iterator(folder))
    if (is_pickle_name(entry.path()))
      throw Error(ErrorCode::unsupported, entry.path().string(),
                  "ringlet reads safetensors only, and this part has only pickled weights",
                  kConvertHint);
  throw Error(ErrorCode::not_found, (folder / (base + ".safetensors")).string(),
              "the weights are missing", "download the model again");
}

ModelFiles find_model(const fs::path& path, const ModelFileOptions& options) {
  return nn::with_ringlet_errors(path.string(), [&] { return find(path, options); });
}

}  // namespace ringlet::pipeline
