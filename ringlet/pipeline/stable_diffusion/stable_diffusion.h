// Stable Diffusion 1, 2 and XL.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/models/diffusion/unet.h"
#include "ringlet/pipeline/embedding.h"
#include "ringlet/pipeline/latent_model.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion_files.h"
#include "ringlet/pipeline/stable_diffusion/text_conditioning.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::pipeline {

/// Conditions are "text" [B, tokens, width], for XL "pooled" [B, width] and "sizes" [B, 6], and for
/// inpainting models "masked" [B, 1 + channels, h, w].
class StableDiffusion final : public LatentModel {
 public:
  /// Loads a model; see find_stable_diffusion. Throws Error(mismatch) that names missing, unused or
  /// wrong-shaped tensors.
  static StableDiffusion open(const std::filesystem::path& path, const LoadOptions& options = {});

  const ModelDescription& description() const override { return files_; }
  ModelDefaults defaults() const override;

  std::int64_t size_unit() const override { return vae().config().downscale(); }

  PromptTokens tokens(const std::string& prompt) const override;
  std::int64_t text_layers() const override;
  Conditions encode_prompts(std::span<const std::string> prompts,
                            std::int64_t clip_skip) const override;
  Conditions without_prompt(const Conditions& positive, std::int64_t clip_skip) const override;
  void add_sizes(Conditions& conditions, std::span<const PictureFrame> frames) const override;
  std::vector<std::string> add_embeddings(const std::filesystem::path& file,
                                          const std::string& word = {}) override;
  void check_embedding_words(std::span<const std::string> texts) const override;

  at::Tensor predict(const at::Tensor& x, const at::Tensor& timesteps, const Conditions& conditions,
                     const ControlInput* control = nullptr) const override;

  bool inpaints() const override { return files_.inpainting; }
  void add_masked_picture(Conditions& conditions, const at::Tensor& mask,
                          const at::Tensor& latents) const override;
  std::unique_ptr<ControlNetwork> create_control(ControlKind kind,
                                                 std::uint64_t seed) const override;
  std::unique_ptr<ControlNetwork> control_from_tensors(
      const std::map<std::string, at::Tensor>& tensors, const std::string& where) const override;
  std::unique_ptr<ControlNetwork> open_control(const std::filesystem::path& path) const override;

  std::vector<StepBlock> training_step(const TrainingStepShape& shape) const override;
  double denoising_bytes(PictureSize size, std::int64_t rows) const override;

  void save(const std::filesystem::path& folder, const SaveModelOptions& options) const override;
  void save_file(const std::filesystem::path& file,
                 const Replacements& replacements) const override;

  /// The text encoders' layers, where the model's own files lack the level "text_model.".
  std::map<std::string, std::string> class_names() const override;

  const StableDiffusionFiles& files() const { return files_; }
  /// Whoever calls their forward passes has their memory in networks() enter() first.
  const models::UNet& unet() const { return *unet_; }
  const std::vector<TextStage>& text() const { return text_; }

 private:
  StableDiffusion(StableDiffusionFiles files, const LoadOptions& options);

  void add_embedding(const std::filesystem::path& file, const TextEmbedding& embedding);

  StableDiffusionFiles files_;
  std::vector<TextStage> text_;
  std::vector<std::string> embedding_words_;
  std::unique_ptr<models::UNet> unet_;
};

}  // namespace ringlet::pipeline
