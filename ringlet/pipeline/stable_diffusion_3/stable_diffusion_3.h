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
#include "ringlet/pipeline/stable_diffusion_3/stable_diffusion_3_files.h"
#include "ringlet/pipeline/text_stage.h"
#include "ringlet/pipeline/transformer_model.h"

namespace ringlet::pipeline {

/// Conditions are "text" [B, tokens of CLIP and of T5, width] and "pooled" [B, width of both
/// CLIPs].
class StableDiffusion3 final : public TransformerModel {
 public:
  /// Loads a model; see find_stable_diffusion_3. Throws Error(mismatch) that names missing, unused
  /// or wrong-shaped tensors, and parts of different models.
  static StableDiffusion3 open(const std::filesystem::path& path, const LoadOptions& options = {});

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

  const StableDiffusion3Files& files() const { return files_; }

 private:
  StableDiffusion3(StableDiffusion3Files files, const LoadOptions& options);

  void check_parts_fit() const;
  void check_order_of_clips() const;
  const ModelFiles& model_files() const override { return files_; }
  Json model_index() const override;
  FirstLayer first_layer() const override;
  std::int64_t head_width() const override { return transformer_->config().head_width; }
  TransformerShape transformer_shape(PictureSize latents) const override;
  PassBlocks text_blocks(PassShape shape) const override;
  std::int64_t all_tokens() const;

  StableDiffusion3Files files_;
  std::int64_t t5_tokens_;
  std::vector<TextStage> clips_;
  std::optional<T5Stage> t5_;  ///< none: zeros in the place of its tokens
  std::unique_ptr<models::Sd3Transformer2DModel> transformer_;
};

}  // namespace ringlet::pipeline
