#include "ringlet/pipeline/model_folder.h"

#include <utility>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/text_model_level.h"
#include "ringlet/nn/torch_errors.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

void write_json(const fs::path& path, const Json& json) {
  write_file_atomically(path, json.dump(2) + "\n");
}

/// A tensor as it goes into the file.
at::Tensor checked(const std::string& name, const at::Tensor& tensor, at::ScalarType dtype) {
  at::Tensor value = tensor.detach().to(at::kCPU, dtype);
  if (!value.isfinite().all().item<bool>())
    throw Error(ErrorCode::non_finite, name,
                "the tensor holds NaN or values too large for the type it is written in",
                "this part was not written; write a wider type");
  return value;
}

void write_component(const std::string& name, const ModelComponent& part,
                     const std::string& weights, const fs::path& root,
                     const SaveModelOptions& options) {
  std::map<std::string, at::Tensor> tensors;
  for (const std::string& key : part.weights->names())
    if (const auto stored = part.weights->find(key, {}, {}))
      tensors.emplace(key, options.dtype && stored->is_floating_point()
                               ? checked(name + "." + key, *stored, *options.dtype)
                               : *stored);
  if (const auto replaced = options.replacements.find(name); replaced != options.replacements.end())
    for (const auto& [key, tensor] : replaced->second) {
      const auto stored = tensors.find(key);
      const at::ScalarType own =
          stored == tensors.end() ? tensor.scalar_type() : stored->second.scalar_type();
      tensors[key] = checked(name + "." + key, tensor, options.dtype.value_or(own));
    }
  const bool flat = formats::lacks_text_model_level(*part.weights);
  std::map<std::string, at::Tensor> in_file;
  for (auto& [key, tensor] : tensors)
    in_file.emplace(flat ? nn::without_text_model_level(key) : key, std::move(tensor));
  make_folder(root / name);
  write_json(root / name / "config.json", part.config);
  io::save_tensors(root / name / weights, in_file, {{"format", "pt"}});
}

void copy_tokenizer(const TokenizerFiles& files, const fs::path& target) {
  make_folder(target);
  for (const char* name : {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
                           "special_tokens_map.json"}) {
    std::error_code problem;
    if (!fs::exists(files.folder / name) || fs::equivalent(files.folder, target, problem)) continue;
    fs::copy_file(files.folder / name, target / name, fs::copy_options::overwrite_existing,
                  problem);
    if (problem)
      throw Error(ErrorCode::io, (target / name).string(),
                  "the file cannot be written: " + problem.message());
  }
}

Json model_index(const ModelFiles& files) {
  const std::string family = files.sdxl() ? "StableDiffusionXL" : "StableDiffusion";
  Json index = {{"_class_name", family + (files.inpainting ? "InpaintPipeline" : "Pipeline")},
                {"unet", {"diffusers", "UNet2DConditionModel"}},
                {"vae", {"diffusers", "AutoencoderKL"}},
                {"text_encoder", {"transformers", "CLIPTextModel"}},
                {"tokenizer", {"transformers", "CLIPTokenizer"}},
                {"scheduler",
                 {"diffusers", json_value<std::string>(files.scheduler, "_class_name",
                                                       "DDIMScheduler", files.scheduler_where)}}};
  if (files.sdxl()) {
    index["text_encoder_2"] = {"transformers", "CLIPTextModelWithProjection"};
    index["tokenizer_2"] = {"transformers", "CLIPTokenizer"};
    index["force_zeros_for_empty_prompt"] = files.zero_empty_negative;
  } else {
    index["safety_checker"] = {nullptr, nullptr};
    index["feature_extractor"] = {nullptr, nullptr};
    index["requires_safety_checker"] = false;
  }
  return index;
}

void save(const StableDiffusion& model, const fs::path& root, const SaveModelOptions& options) {
  const ModelFiles& files = model.files();
  constexpr const char* kNetwork = "diffusion_pytorch_model.safetensors";
  constexpr const char* kText = "model.safetensors";
  std::error_code problem;
  if (fs::equivalent(root, files.path, problem))
    throw Error(ErrorCode::invalid_argument, root.string(), "this is the model itself",
                "write to another folder");
  make_folder(root);
  write_component("unet", files.unet, kNetwork, root, options);
  write_component("vae", files.vae, kNetwork, root, options);
  write_component("text_encoder", files.text_encoder, kText, root, options);
  copy_tokenizer(files.tokenizer, root / "tokenizer");
  if (files.sdxl()) {
    write_component("text_encoder_2", files.text_encoder_2, kText, root, options);
    copy_tokenizer(files.tokenizer_2, root / "tokenizer_2");
  }
  make_folder(root / "scheduler");
  write_json(root / "scheduler" / "scheduler_config.json", files.scheduler);
  write_json(root / "model_index.json", model_index(files));
}

}  // namespace

Replacements trained_tensors(const StableDiffusion& model) {
  Replacements tensors;
  for (const auto& [component, index] : model.indices()) tensors[component] = index.tensors;
  return tensors;
}

void save_model(const StableDiffusion& model, const fs::path& folder,
                const SaveModelOptions& options) {
  nn::with_ringlet_errors(folder.string(), [&] { save(model, folder, options); });
}

}  // namespace ringlet::pipeline
