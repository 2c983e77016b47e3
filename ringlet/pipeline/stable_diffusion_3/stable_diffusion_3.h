// Stable Diffusion 3 and 3.5.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/models/diffusion/sd3_transformer.h"
#include "ringlet/pipeline/control_features.h"
#include "ringlet/pipeline/latent_model.h"
#include "ringlet/pipeline/stable_diffusion_3/stable_diffusion_3_files.h"
#include "ringlet/pipeline/text_stage.h"

namespace ringlet::pipeline {

/// Conditions are "text" [B, tokens of CLIP and of T5, width] and "pooled" [B, width of both
/// CLIPs].
class StableDiffusion3 final : public LatentModel {
 public:
  /// Loads a model; see find_stable_diffusion_3. Throws Error(mismatch) that names missing, unused
  /// or wrong-shaped tensors, and parts of different models.
  static StableDiffusion3 open(const std::filesystem::path& path, const LoadOptions& options = {});

  const ModelDescription& description() const override { return files_; }
  ModelDefaults defaults() const override;

  std::int64_t size_unit() const override {
    return vae().config().downscale() * transformer_->config().patch_size;
  }
  /// Positions are known for so many tokens.
  std::int64_t largest_side() const override {
    return size_unit() * transformer_->config().table_side;
  }

  PromptTokens tokens(const std::string& prompt) const override;
  std::int64_t text_layers() const override;
  Conditions encode_prompts(std::span<const std::string> prompts,
                            std::int64_t clip_skip) const override;

  at::Tensor predict(const at::Tensor& x, const at::Tensor& timesteps, const Conditions& conditions,
                     const ControlInput* control = nullptr) const override;

  bool inpaints_latents() const override { return true; }
  std::unique_ptr<ControlNetwork> create_control(ControlKind kind,
                                                 std::uint64_t seed) const override;
  std::unique_ptr<ControlNetwork> control_from_tensors(
      const std::map<std::string, at::Tensor>& tensors, const std::string& where) const override;

  std::vector<StepBlock> training_step(const TrainingStepShape& shape) const override;
  double denoising_bytes(PictureSize size, std::int64_t rows) const override;

  void save(const std::filesystem::path& folder, const SaveModelOptions& options) const override;
  std::map<std::string, std::string> class_names() const override {
    return text_class_names(files_);
  }

  const StableDiffusion3Files& files() const { return files_; }

 private:
  StableDiffusion3(StableDiffusion3Files files, const LoadOptions& options);

  void check_parts_fit() const;
  void check_order_of_clips() const;
  FirstLayer first_layer() const;
  std::int64_t all_tokens() const;

  StableDiffusion3Files files_;
  std::int64_t t5_tokens_;
  std::vector<TextStage> clips_;
  std::optional<T5Stage> t5_;  ///< none: zeros in the place of its tokens
  std::unique_ptr<models::Sd3Transformer2DModel> transformer_;
};

}  // namespace ringlet::pipeline
