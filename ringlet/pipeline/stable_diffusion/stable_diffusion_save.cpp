// Writes Stable Diffusion as a diffusers folder, or as the single file that it was.
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/formats/renamed_store.h"
#include "ringlet/nn/text_model_level.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/model_folder.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

Json model_index(const StableDiffusionFiles& files) {
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

/// model_index.json comes last, so that a folder without it is incomplete.
void save_folder(const StableDiffusionFiles& files, const fs::path& root,
                 const SaveModelOptions& options) {
  refuse_own_path(files, root);
  make_folder(root);
  for (const char* name : {"unet", "vae", "text_encoder", "text_encoder_2"})
    if (const auto part = files.parts.find(name); part != files.parts.end())
      write_component(name, part->second, root, options);
  for (const auto& [name, tokenizer] : files.tokenizers) copy_tokenizer(tokenizer, root / name);
  make_folder(root / "scheduler");
  write_json(root / "scheduler" / "scheduler_config.json", files.scheduler);
  write_json(root / "model_index.json", model_index(files));
}

void save_single_file(const StableDiffusionFiles& files, const fs::path& out,
                      const Replacements& replaced) {
  if (fs::is_directory(files.path))
    throw Error(ErrorCode::unsupported, out.string(),
                "a model folder cannot be merged into a single file",
                "give a folder name for the result");
  std::map<std::string, at::Tensor> in_file;
  for (const auto& [component, tensors] : replaced) {
    const auto& store =
        dynamic_cast<const formats::RenamedStore&>(*files.parts.at(component).weights);
    in_file.merge(store.in_origin(tensors));
  }
  const auto file = io::SafetensorsFile::open(files.path);
  write_changed(*file, nn::FileStore(std::vector{file}), in_file, {}, std::identity(), out);
}

}  // namespace

void StableDiffusion::save(const fs::path& folder, const SaveModelOptions& options) const {
  nn::with_ringlet_errors(folder.string(), [&] { save_folder(files_, folder, options); });
}

void StableDiffusion::save_file(const fs::path& file, const Replacements& replacements) const {
  nn::with_ringlet_errors(file.string(), [&] { save_single_file(files_, file, replacements); });
}

std::map<std::string, std::string> StableDiffusion::class_names() const {
  std::map<std::string, std::string> names;
  for (const auto& [component, part] : files_.parts) {
    if (part.role != NetworkRole::text_encoder || !formats::lacks_text_model_level(*part.weights))
      continue;
    for (const auto& [layer, pointer] : networks_.at(component).index.layers)
      if (std::string bare = nn::without_text_model_level(layer); bare != layer)
        names.emplace(component + "." + layer, std::move(bare));
  }
  return names;
}

}  // namespace ringlet::pipeline
