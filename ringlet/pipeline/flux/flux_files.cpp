#include "ringlet/pipeline/flux/flux_files.h"

#include "ringlet/models/diffusion/flux_config.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/checkpoint_parts.h"
#include "ringlet/pipeline/describe.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;

const CheckpointFamily& flux_family() {
  static const CheckpointFamily family{
      .name = "FLUX.1",
      .transformer = formats::TransformerFamily::flux,
      .text = {{formats::TextEncoderKind::clip_l, "text_encoder", "tokenizer"},
               {formats::TextEncoderKind::t5, "text_encoder_2", "tokenizer_2"}},
      .projection = formats::ClipProjection::none,
      .latents = formats::flux_scale()};
  return family;
}

/// dev is told by its guidance embedding.
void tell_kind(FluxFiles& files) {
  const ModelComponent& transformer = files.parts.at("transformer");
  files.dev = models::FluxConfig::from_json(transformer.config, transformer.where).guidance_embeds;
  files.kind = files.dev ? "FLUX.1 dev" : "FLUX.1 schnell";
}

FluxFiles find_flux_folder(const fs::path& root, const ModelFileOptions& options) {
  FluxFiles files;
  open_folder(files, root, read_json_file(root / "model_index.json"),
              {{"transformer", NetworkRole::denoiser},
               {"vae", NetworkRole::autoencoder},
               {"text_encoder", NetworkRole::text_encoder, "tokenizer"},
               {"text_encoder_2", NetworkRole::text_encoder, "tokenizer_2"}},
              options);
  use_given_parts(files, options, flux_family());
  tell_kind(files);
  return files;
}

/// A single file without its tokenizers.
FluxFiles find_flux_file(const fs::path& path, const ModelFileOptions& options) {
  FluxFiles files;
  find_checkpoint_parts(files, path, options, flux_family());
  tell_kind(files);
  files.scheduler = {{"_class_name", "FlowMatchEulerDiscreteScheduler"},  // as published
                     {"num_train_timesteps", 1000},
                     {"shift", files.dev ? 3.0 : 1.0},
                     {"use_dynamic_shifting", files.dev},
                     {"base_shift", 0.5},
                     {"max_shift", 1.15},
                     {"base_image_seq_len", 256},
                     {"max_image_seq_len", 4096}};
  files.scheduler_where = path.string();
  return files;
}

}  // namespace

bool is_flux_folder(const fs::path& folder) {
  return has_pipeline_class(folder, {"FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"});
}

bool is_flux_file(const std::shared_ptr<const io::SafetensorsFile>& file) {
  return has_original_transformer(*file, formats::TransformerFamily::flux);
}

FluxFiles find_flux(const fs::path& path, const ModelFileOptions& options) {
  return nn::with_ringlet_errors(path.string(), [&] {
    check_model_path(path, options);
    FluxFiles files =
        fs::is_directory(path) ? find_flux_folder(path, options) : find_flux_file(path, options);
    require_parts(files, flux_family());
    find_tokenizers(files, options, flux_family());
    return files;
  });
}

Json describe_flux(const fs::path& path, const std::string& variant) {
  ModelFileOptions options;
  options.variant = variant;
  if (!fs::is_directory(path))
    return describe_checkpoint(find_flux_file(path, options), flux_family());
  return describe_model_folder(find_flux(path, options),
                               {"transformer", "vae", "text_encoder", "text_encoder_2"}, variant);
}

}  // namespace ringlet::pipeline
