// Text to image with Stable Diffusion 1, 2 and XL.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/picture_size.h"
#include "ringlet/diffusion/guidance.h"
#include "ringlet/diffusion/sampler_table.h"
#include "ringlet/io/image.h"
#include "ringlet/models/unet.h"
#include "ringlet/models/vae.h"
#include "ringlet/pipeline/control.h"
#include "ringlet/pipeline/embedding.h"
#include "ringlet/pipeline/model_files.h"
#include "ringlet/pipeline/text_conditioning.h"

namespace ringlet::pipeline {

struct LoadOptions {
  ModelFileOptions files;
  at::Device device = at::kCPU;
  at::ScalarType precision = at::kFloat;  ///< compute type of U-Net and text encoders
  bool low_memory = false;  ///< keep 16-bit weights as stored, widen layer by layer; code images in
                            ///< slices and tiles
  bool for_training = false;        ///< lay frozen weights out for the backward pass, too
  std::set<std::string> trainable;  ///< components ("unet", "text_encoder", …) whose weights learn
};

struct GenerateRequest {
  std::string prompt;
  std::optional<std::string> negative_prompt;  ///< none is not the same as "" for SDXL
  std::vector<std::uint64_t> seeds = {0};      ///< one image per seed, in one batch
  PictureSize size = {};                       ///< a side of 0 = the model's own
  std::int64_t steps = 30;
  diffusion::SamplerChoice sampler;  ///< none = the model's own
  diffusion::Guidance guidance;
  double eta = 0.0;  ///< DDIM only
  std::int64_t clip_skip = 1;
  at::Tensor latents;                       ///< start noise [B, 4, h/8, w/8] in place of the seeds'
  std::optional<io::Image> init_image;      ///< image-to-image
  std::optional<io::Image> mask_image;      ///< inpainting models: white is painted anew
  double strength = 0.8;                    ///< of image-to-image, in (0, 1]
  const ControlNetwork* control = nullptr;  ///< sees control_image; must outlive the request
  std::optional<io::Image> control_image;  ///< edges, a map, …; scaled and cropped to the picture
  double control_strength = 1.0;           ///< 0 = as without control
  std::string adapters;                    ///< "name:1, other:0.5", for the picture's text only
};

class StableDiffusion {
 public:
  /// Loads a model; see find_model. Throws Error(mismatch) that names missing, unused or
  /// wrong-shaped tensors.
  static StableDiffusion open(const std::filesystem::path& path, const LoadOptions& options = {});

  /// Teaches the text encoders the words of a textual-inversion file (see pipeline/embedding.h) and
  /// returns them; `word` replaces the file's only one. Throws as read_embeddings, Error(mismatch)
  /// when the file is for other text encoders, and Error(invalid_argument) for a word that is
  /// taken.
  std::vector<std::string> add_embeddings(const std::filesystem::path& file,
                                          const std::string& word = {});

  /// Warns of words of embeddings that none of the texts uses, and of those that stand inside
  /// another word of a text, a part of which they replace: once for each word.
  void check_embedding_words(std::span<const std::string> texts) const;

  /// Clean latents [B, 4, h/8, w/8], scaled as the U-Net sees them.
  at::Tensor sample(const GenerateRequest& request, const diffusion::StepCallback& callback) const;

  /// Latents to images.
  std::vector<io::Image> decode(const at::Tensor& latents) const;

  /// Checks sizes, steps, mask and latents of a request without computing anything. Throws
  /// Error(invalid_argument | mismatch). Fills in size and
  /// sampler.
  GenerateRequest checked(GenerateRequest request) const;

  /// Which of these prompts are too long for the text encoder, each when it is asked for the first
  /// time: whoever asks tells the user. sample() logs a warning for those of its request. Several
  /// threads may call it.
  std::vector<CutPrompt> newly_cut(std::span<const std::string> prompts) const;

  const ModelFiles& files() const { return files_; }
  const diffusion::Schedule& schedule() const { return schedule_; }
  diffusion::SamplerChoice default_sampler() const;

  /// Layers and tensors of the networks by component ("unet", "vae", "text_encoder",
  /// "text_encoder_2") and dotted name: where adapters are put, and what full training changes.
  const std::map<std::string, nn::ModuleIndex>& indices() const { return indices_; }

  /// The networks, for training.
  const models::UNet& unet() const { return *unet_; }
  const models::AutoencoderKL& vae() const { return *vae_; }
  const std::vector<TextStage>& text() const { return text_; }
  const LoadOptions& options() const { return options_; }

 private:
  StableDiffusion(ModelFiles files, const LoadOptions& options);

  void add_embedding(const std::filesystem::path& file, const TextEmbedding& embedding);

  /// Conditions of the whole batch; with guidance the negative prompt's come first.
  struct Conditions {
    at::Tensor text;
    models::AddedConditions added;
  };
  Conditions conditions(const GenerateRequest& request, bool guided) const;
  TextConditions negative_conditions(const GenerateRequest& request,
                                     const TextConditions& positive) const;
  at::Tensor sample_checked(const GenerateRequest& request,
                            const diffusion::StepCallback& callback) const;
  std::vector<io::Image> decode_images(const at::Tensor& latents) const;
  at::Tensor encode_image(const at::Tensor& pixels, const GenerateRequest& request,
                          const char* stream) const;
  at::Tensor inpainting_channels(const GenerateRequest& request) const;
  diffusion::Denoiser denoiser(const GenerateRequest& request) const;
  at::Tensor start(const GenerateRequest& request, const diffusion::SamplingPlan& plan) const;

  ModelFiles files_;
  LoadOptions options_;
  diffusion::Schedule schedule_;
  std::vector<TextStage> text_;
  std::vector<std::string> embedding_words_;
  struct ToldPrompts;
  std::shared_ptr<ToldPrompts> told_;  ///< asked for in newly_cut
  std::map<std::string, nn::ModuleIndex> indices_;
  std::unique_ptr<models::UNet> unet_;
  std::unique_ptr<models::AutoencoderKL> vae_;
};

}  // namespace ringlet::pipeline
