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
#include "ringlet/pipeline/control_features.h"
#include "ringlet/pipeline/flux/flux_files.h"
#include "ringlet/pipeline/latent_model.h"
#include "ringlet/pipeline/text_stage.h"

namespace ringlet::pipeline {

/// Conditions are "text" [B, tokens, width] of T5, "pooled" [B, width] of CLIP, and for dev
/// "guidance" [B].
class Flux final : public LatentModel {
 public:
  /// Loads a model; see find_flux. Throws Error(mismatch) that names missing, unused or
  /// wrong-shaped tensors, and parts of different models.
  static Flux open(const std::filesystem::path& path, const LoadOptions& options = {});

  const ModelDescription& description() const override { return files_; }
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

  const FluxFiles& files() const { return files_; }

 private:
  Flux(FluxFiles files, const LoadOptions& options);

  void check_parts_fit() const;
  FirstLayer first_layer() const;

  FluxFiles files_;
  std::int64_t t5_tokens_;
  std::optional<TextStage> clip_;
  std::optional<T5Stage> t5_;
  std::unique_ptr<models::FluxTransformer2DModel> transformer_;
};

}  // namespace ringlet::pipeline
