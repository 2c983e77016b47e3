#include "ringlet/pipeline/stable_diffusion_3/stable_diffusion_3_files.h"

#include <algorithm>
#include <map>
#include <vector>

#include "ringlet/core/log.h"
#include "ringlet/formats/text_encoder_file.h"
#include "ringlet/models/diffusion/patch_embedding.h"
#include "ringlet/models/diffusion/sd3_config.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/checkpoint_parts.h"
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

constexpr const char* kPositionTable = "pos_embed.pos_embed";

const CheckpointFamily& sd3_family() {
  static const CheckpointFamily family{
      .name = "Stable Diffusion 3",
      .transformer = formats::TransformerFamily::stable_diffusion_3,
      .text = {{formats::TextEncoderKind::clip_l, "text_encoder", "tokenizer"},
               {formats::TextEncoderKind::clip_g, "text_encoder_2", "tokenizer_2"},
               {formats::TextEncoderKind::t5, "text_encoder_3", "tokenizer_3", /*optional=*/true}},
      .projection = formats::ClipProjection::needed,
      .latents = formats::stable_diffusion_3_scale()};
  return family;
}

/// The table of positions that the transformer's file lacks, and other programs need.
void add_positions(ModelComponent& transformer) {
  const std::vector<std::string> names = transformer.weights->names();
  if (names.empty() || std::ranges::find(names, kPositionTable) != names.end()) return;
  const auto config = models::Sd3Config::from_json(transformer.config, transformer.where);
  log(LogLevel::info, transformer.weights->description() +
                          ": there is no table of positions; it is computed for " +
                          std::to_string(config.table_side) + " tokens along a side");
  transformer.weights = std::make_shared<formats::StoreWith>(
      transformer.weights,
      std::map<std::string, at::Tensor>{
          {kPositionTable, models::position_table(config.width(), config.table_side,
                                                  config.sample_size / config.patch_size)}});
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
  use_given_parts(files, options, sd3_family());
  return files;
}

/// A single file without its tokenizers.
StableDiffusion3Files find_sd3_file(const fs::path& path, const ModelFileOptions& options) {
  StableDiffusion3Files files;
  find_checkpoint_parts(files, path, options, sd3_family());
  constexpr double kShift = 3.0;  // of all that are published
  files.scheduler = {{"_class_name", "FlowMatchEulerDiscreteScheduler"},
                     {"num_train_timesteps", 1000},
                     {"shift", kShift}};
  files.scheduler_where = path.string();
  files.kind = kind_of_sd3(files.parts.at("transformer"));
  return files;
}

}  // namespace

bool is_stable_diffusion_3_folder(const fs::path& folder) {
  return has_pipeline_class(folder, {"StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline",
                                     "StableDiffusion3InpaintPipeline"});
}

bool is_stable_diffusion_3_file(const std::shared_ptr<const io::SafetensorsFile>& file) {
  return has_original_transformer(*file, formats::TransformerFamily::stable_diffusion_3);
}

StableDiffusion3Files find_stable_diffusion_3(const fs::path& path,
                                              const ModelFileOptions& options) {
  return nn::with_ringlet_errors(path.string(), [&] {
    check_model_path(path, options);
    const bool folder = fs::is_directory(path);
    StableDiffusion3Files files =
        folder ? find_sd3_folder(path, options) : find_sd3_file(path, options);
    require_parts(files, sd3_family());
    find_tokenizers(files, options, sd3_family());
    files.kind = kind_of_sd3(files.parts.at("transformer"));
    add_positions(files.parts.at("transformer"));
    return files;
  });
}

Json describe_stable_diffusion_3(const fs::path& path, const std::string& variant) {
  ModelFileOptions options;
  options.variant = variant;
  if (!fs::is_directory(path))
    return describe_checkpoint(find_sd3_file(path, options), sd3_family());
  return describe_model_folder(
      find_stable_diffusion_3(path, options),
      {"transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"}, variant);
}

}  // namespace ringlet::pipeline
