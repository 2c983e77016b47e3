#include "ringlet/pipeline/flux/flux_files.h"

#include "ringlet/models/diffusion/flux_config.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/describe.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

FluxFiles find_flux_folder(const fs::path& root, const ModelFileOptions& options) {
  FluxFiles files;
  open_folder(files, root, read_json_file(root / "model_index.json"),
              {{"transformer", NetworkRole::denoiser},
               {"vae", NetworkRole::autoencoder},
               {"text_encoder", NetworkRole::text_encoder, "tokenizer"},
               {"text_encoder_2", NetworkRole::text_encoder, "tokenizer_2"}},
              options);
  const ModelComponent& transformer = files.parts.at("transformer");
  files.dev = models::FluxConfig::from_json(transformer.config, transformer.where).guidance_embeds;
  files.kind = files.dev ? "FLUX.1 dev" : "FLUX.1 schnell";
  return files;
}

}  // namespace

bool is_flux_folder(const fs::path& folder) {
  return has_pipeline_class(folder, {"FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"});
}

FluxFiles find_flux(const fs::path& path, const ModelFileOptions& options) {
  return nn::with_ringlet_errors(path.string(), [&] {
    check_model_path(path, options);
    return find_flux_folder(path, options);
  });
}

Json describe_flux(const fs::path& path, const std::string& variant) {
  ModelFileOptions options;
  options.variant = variant;
  return describe_model_folder(find_flux(path, options),
                               {"transformer", "vae", "text_encoder", "text_encoder_2"}, variant);
}

}  // namespace ringlet::pipeline
