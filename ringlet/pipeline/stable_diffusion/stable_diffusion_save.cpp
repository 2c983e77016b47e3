// Writes Stable Diffusion as a diffusers folder, or as the single file that it was.
#include <map>
#include <string>

#include "ringlet/nn/torch_errors.h"
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
                {"scheduler", scheduler_entry(files, "DDIMScheduler")}};
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

}  // namespace

void StableDiffusion::save(const fs::path& folder, const SaveModelOptions& options) const {
  nn::with_ringlet_errors(
      folder.string(), [&] { write_model_folder(files_, model_index(files_), folder, options); });
}

void StableDiffusion::save_file(const fs::path& file, const Replacements& replacements) const {
  nn::with_ringlet_errors(file.string(), [&] { write_single_file(files_, file, replacements); });
}

std::map<std::string, std::string> StableDiffusion::class_names() const {
  return text_class_names(files_);
}

}  // namespace ringlet::pipeline
