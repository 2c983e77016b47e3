// FLUX.1: dev, which is told a guidance scale, and schnell.
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

#include "ringlet/models/diffusion/flux_transformer.h"
#include "ringlet/pipeline/flux/flux_files.h"
#include "ringlet/pipeline/text_stage.h"
#include "ringlet/pipeline/transformer_model.h"

namespace ringlet::pipeline {

/// Conditions are "text" [B, tokens, width] of T5, "pooled" [B, width] of CLIP, and for dev
/// "guidance" [B].
class Flux final : public TransformerModel {
 public:
  /// Loads a model; see find_flux. Throws Error(mismatch) that names missing, unused or
  /// wrong-shaped tensors, and parts of different models.
  static Flux open(const std::filesystem::path& path, const LoadOptions& options = {});

  ModelDefaults defaults() const override;

  std::int64_t size_unit() const override { return 2 * vae().config().downscale(); }

  PromptTokens tokens(const std::string& prompt) const override;
  Conditions encode_prompts(std::span<const std::string> prompts,
                            std::int64_t clip_skip) const override;
  bool embeds_guidance() const override { return files_.dev; }
  bool guidance_is_distilled() const override { return true; }
  void add_guidance(Conditions& conditions, double scale) const override;

  at::Tensor predict(const at::Tensor& x, const at::Tensor& timesteps, const Conditions& conditions,
                     const ControlInput* control = nullptr) const override;

  const FluxFiles& files() const { return files_; }

 private:
  Flux(FluxFiles files, const LoadOptions& options);

  void check_parts_fit() const;
  const ModelFiles& model_files() const override { return files_; }
  Json model_index() const override;
  FirstLayer first_layer() const override;
  std::int64_t head_width() const override { return transformer_->config().head_width; }
  TransformerShape transformer_shape(PictureSize latents) const override;
  PassBlocks text_blocks(PassShape shape) const override;

  FluxFiles files_;
  std::int64_t t5_tokens_;
  std::optional<TextStage> clip_;
  std::optional<T5Stage> t5_;
  std::unique_ptr<models::FluxTransformer2DModel> transformer_;
};

}  // namespace ringlet::pipeline
