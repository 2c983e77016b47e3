#include "ringlet/pipeline/stable_diffusion_3/stable_diffusion_3_files.h"

#include "ringlet/models/diffusion/sd3_config.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/describe.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

/// By what tells the published networks apart: the norms of 3.5, and the second attention of its
/// medium size.
std::string kind_of_sd3(const ModelComponent& transformer) {
  const auto config = models::Sd3Config::from_json(transformer.config, transformer.where);
  if (!config.rms_norm) return "Stable Diffusion 3";
  return config.dual_attention_layers.empty() ? "Stable Diffusion 3.5 large"
                                              : "Stable Diffusion 3.5 medium";
}

StableDiffusion3Files find_sd3_folder(const fs::path& root, const ModelFileOptions& options) {
  StableDiffusion3Files files;
  open_folder(files, root, read_json_file(root / "model_index.json"),
              {{"transformer", NetworkRole::denoiser},
               {"vae", NetworkRole::autoencoder},
               {"text_encoder", NetworkRole::text_encoder, "tokenizer"},
               {"text_encoder_2", NetworkRole::text_encoder, "tokenizer_2"},
               {"text_encoder_3", NetworkRole::text_encoder, "tokenizer_3", /*optional=*/true}},
              options);
  files.kind = kind_of_sd3(files.parts.at("transformer"));
  return files;
}

}  // namespace

bool is_stable_diffusion_3_folder(const fs::path& folder) {
  return has_pipeline_class(folder, {"StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline",
                                     "StableDiffusion3InpaintPipeline"});
}

StableDiffusion3Files find_stable_diffusion_3(const fs::path& path,
                                              const ModelFileOptions& options) {
  return nn::with_ringlet_errors(path.string(), [&] {
    check_model_path(path, options);
    return find_sd3_folder(path, options);
  });
}

Json describe_stable_diffusion_3(const fs::path& path, const std::string& variant) {
  ModelFileOptions options;
  options.variant = variant;
  return describe_model_folder(
      find_stable_diffusion_3(path, options),
      {"transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"}, variant);
}

}  // namespace ringlet::pipeline
