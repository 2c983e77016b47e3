// A text-to-image model as training, sampling, merging and saving see it, whatever its networks
// are. A new family implements TextToImageModel and adds a row to model_families.cpp.
#pragma once

#include <algorithm>
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

#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/adapt/set/targets.h"
#include "ringlet/core/json.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/diffusion/noise_process.h"
#include "ringlet/diffusion/sampler_table.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/nn/layer_options.h"
#include "ringlet/nn/network_memory.h"
#include "ringlet/nn/weight_source.h"
#include "ringlet/nn/weight_storage.h"
#include "ringlet/pipeline/conditions.h"
#include "ringlet/pipeline/control.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::pipeline {

/// Which frozen networks leave a device while others compute. On the CPU all of them give the pages
/// of their files back.
enum class IdleNetworks : std::uint8_t {
  stay,          ///< picture after picture is made without copies
  coders_leave,  ///< text encoders and autoencoder
  all_leave,     ///< the denoiser, too, while pictures are decoded
};

struct LoadOptions {
  ModelFileOptions files = {};
  at::Device device = at::kCPU;
  at::ScalarType precision = at::kFloat;  ///< compute type of denoiser and text encoders
  bool low_memory = false;  ///< keep 16-bit weights as stored on any device, read kernels from the
                            ///< file in every pass; encode and decode images in tiles
  std::int64_t tile = 0;  ///< side of the tiles that images are encoded and decoded in, in pixels,
                          ///< a multiple of the size unit; 0 = whole, or with low_memory the
                          ///< autoencoder's own
  /// Of the frozen denoiser's linear layers and convolutions.
  nn::WeightStorage storage = nn::WeightStorage::as_stored;
  IdleNetworks idle = IdleNetworks::stay;  ///< at least; see idle_networks()
  /// Blocks of the frozen denoiser that stay in host memory (nn::NetworkMemory::offload); none:
  /// whoever knows what else is needed calls offload_denoiser (pipeline/offload.h).
  std::optional<std::int64_t> offload_layers = 0;
  bool for_training = false;             ///< lay frozen weights out for both passes
  std::set<NetworkRole> trainable = {};  ///< the networks whose own weights learn

  /// What the frozen kernels are laid out for.
  nn::WeightUse weight_use() const {
    if (low_memory) return nn::WeightUse::streamed;
    if (storage == nn::WeightStorage::bf16 || nn::is_coded(storage)) return nn::WeightUse::narrow;
    return for_training ? nn::WeightUse::training : nn::WeightUse::inference;
  }
  /// Training uses text encoders and autoencoder before its steps, and for samples.
  IdleNetworks idle_networks() const {
    return for_training || low_memory ? std::max(idle, IdleNetworks::coders_leave) : idle;
  }
  /// Whether frozen 16-bit weights stay so where `type` is computed in. On the CPU they are widened
  /// in the call, which takes little beside an fp32 product.
  bool keeps_storage_type(at::ScalarType type) const {
    return low_memory || (device.is_cpu() && type == at::kFloat);
  }
};

/// A network of a model.
struct ModelNetwork {
  NetworkRole role = NetworkRole::denoiser;
  nn::ModuleIndex index;  ///< its layers and tensors by dotted name
  Json config;            ///< its configuration, which its results depend on
  std::shared_ptr<nn::NetworkMemory> memory = nullptr;  ///< null: it stays where it is
};

/// By the name that adapters and files call them ("unet", "text_encoder", …).
using ModelNetworks = std::map<std::string, ModelNetwork>;

/// What a picture is made with where nothing else is asked for.
struct ModelDefaults {
  PictureSize size;
  std::int64_t steps = 30;
  double guidance = 7.5;
  diffusion::SamplerChoice sampler;
};

/// A diagonal Gaussian over latents at the denoiser's scale, both [B, channels, h, w].
struct LatentPosterior {
  at::Tensor mean;
  at::Tensor deviation;

  at::Tensor sample(const at::Tensor& noise) const;
};

/// A prompt as that of a model's text encoders reads it which reads most.
struct PromptTokens {
  std::int64_t used = 0;   ///< that are read, begin and end included
  std::int64_t total = 0;  ///< of the whole prompt
  std::int64_t limit = 0;  ///< the most that are read
  std::string cut;         ///< the words beyond the limit, or ""
};

/// A prompt that has more tokens than the text encoder takes.
struct CutPrompt {
  std::string prompt;
  std::int64_t tokens = 0;  ///< of the whole, begin and end included
  std::int64_t limit = 0;   ///< that are read
  std::string cut;          ///< the words beyond them
};

/// What is added in a denoiser's middle to follow control pictures.
struct ControlInput {
  const ControlNetwork& network;  ///< made by the model that it is given to
  at::Tensor pictures;            ///< as TextToImageModel::control_view has them, B or 1 of them
  double strength = 1.0;          ///< 0 = as without control
};

/// What the activations of a training step depend on besides the model.
struct TrainingStepShape {
  std::int64_t rows = 1;  ///< pictures at a time
  PictureSize size;
  const adapt::AdapterSet* adapters = nullptr;
  bool full = false;        ///< the denoiser's own weights learn
  bool text = false;        ///< text encoders run in every step
  bool controlnet = false;  ///< a ControlNet learns
};

/// A part of a training step that gradient checkpointing can compute again, in the order of the
/// forward pass. Bytes, but for the work.
struct StepBlock {
  std::string name = {};  ///< as nn::checkpointed knows it; "" = never computed again
  double before = 0.0;    ///< kept since the block before, whatever is computed again: its input
  double inside = 0.0;    ///< kept of what it computes, unless it is computed again
  double passing = 0.0;   ///< the most that is there besides while it is computed, or its gradient
  double work = 0.0;      ///< operations of its forward pass
};

/// The most bytes that a step with these blocks holds at a time. While the gradient of a block is
/// computed, what the blocks behind it have kept is gone, and what it keeps itself is there: from
/// the forward pass, or computed again.
double step_peak(std::span<const StepBlock> blocks, const nn::RecomputedBlocks& recomputed);

/// Tensors that take the place of a model's own, by network and dotted name.
using Replacements = std::map<std::string, std::map<std::string, at::Tensor>>;

struct SaveModelOptions {
  Replacements replacements;
  std::optional<at::ScalarType> dtype;  ///< of the weights in the files; none = as they are stored
};

/// Functions on pictures and latents may run under at::NoGradGuard or not; predict and
/// encode_prompts carry gradients to what learns. One model may be used by one thread at a time,
/// but for newly_cut.
class TextToImageModel {
 public:
  virtual ~TextToImageModel() = default;

  // What it is.

  virtual const ModelDescription& description() const = 0;
  virtual const LoadOptions& options() const = 0;
  virtual ModelDefaults defaults() const = 0;

  /// All of them; adapters change those that are not the autoencoder.
  virtual const ModelNetworks& networks() const = 0;

  /// The process that the denoiser reverses.
  virtual const std::shared_ptr<const diffusion::NoiseProcess>& noise_process() const = 0;

  // Pictures and latents.

  /// Widths and heights are multiples of this, in pixels.
  virtual std::int64_t size_unit() const = 0;

  /// The largest of them, in pixels.
  virtual std::int64_t largest_side() const {
    constexpr std::int64_t kLargest = 8192;
    return kLargest;
  }

  /// [channels, h, w] of a picture of this size, and back.
  virtual nn::Shape latent_shape(PictureSize size) const = 0;
  virtual PictureSize picture_size(at::IntArrayRef latents) const = 0;

  /// Pictures [B, 3, H, W] in [-1, 1] to latents, on the model's device.
  virtual LatentPosterior encode(const at::Tensor& pictures) const = 0;

  /// Clean latents [B, channels, h, w] to pictures [B, 3, H, W] in about [-1, 1], in fp32.
  virtual at::Tensor decode(const at::Tensor& latents) const = 0;

  // Text.

  /// Throws Error(invalid_argument) for text that is not UTF-8.
  virtual PromptTokens tokens(const std::string& prompt) const = 0;

  /// How many of the text encoder's last layers can be chosen from: clip_skip counts from 1.
  virtual std::int64_t text_layers() const { return 1; }

  /// Conditions of prompts, a row each, without sizes. `clip_skip` n: the text encoder's n-th layer
  /// from the end. Too long prompts are cut silently: see newly_cut. Throws
  /// Error(invalid_argument | mismatch).
  virtual Conditions encode_prompts(std::span<const std::string> prompts,
                                    std::int64_t clip_skip) const = 0;

  /// The conditions of a negative prompt that is not given, beside the row of a positive one: the
  /// empty prompt, unless the model was trained with something else.
  virtual Conditions without_prompt(const Conditions& positive, std::int64_t clip_skip) const;

  /// Whether the denoiser is told the scale of a guidance that it was distilled with: then a
  /// request's `guidance` is that scale.
  virtual bool embeds_guidance() const { return false; }

  /// Whether the denoiser was distilled, so that it needs no classifier-free guidance. Then the
  /// scale of that is a request's `true_guidance`.
  virtual bool guidance_is_distilled() const { return embeds_guidance(); }

  /// Tells such a model the scale, in every row; does nothing in others.
  virtual void add_guidance(Conditions&, double) const {}

  /// Tells the model of sizes, a frame for each row; most models take none.
  virtual void add_sizes(Conditions& conditions, std::span<const PictureFrame> frames) const;

  /// Teaches the text encoders the words of a textual-inversion file (see pipeline/embedding.h) and
  /// returns them; `word` replaces the file's only one. Throws as read_embeddings, Error(mismatch)
  /// when the file is for other text encoders, Error(invalid_argument) for a word that is taken,
  /// and Error(unsupported) where the model takes none.
  virtual std::vector<std::string> add_embeddings(const std::filesystem::path& file,
                                                  const std::string& word = {});

  /// Warns of words of embeddings that none of the texts uses, and of those that stand inside
  /// another word of a text, a part of which they replace: once for each word.
  virtual void check_embedding_words(std::span<const std::string> texts) const;

  // The denoiser.

  /// The raw prediction for latents x [B, channels, h, w] of fp32, in fp32. `timesteps` [B], or [1]
  /// for all rows: those of NoiseLevel, in fp32 on x's device; `conditions` have B rows. What it
  /// says is the noise process's prediction(), for x at the process's input_scale.
  virtual at::Tensor predict(const at::Tensor& x, const at::Tensor& timesteps,
                             const Conditions& conditions,
                             const ControlInput* control = nullptr) const = 0;

  // What some models can do besides; the definitions here throw Error(unsupported).

  /// Whether the denoiser sees a masked picture, for inpainting.
  virtual bool inpaints() const { return false; }

  /// Whether pictures are inpainted by any such model: what a mask keeps is put back into the
  /// latents at every step. Families with networks for inpainting ask for one of those instead.
  virtual bool inpaints_latents() const { return false; }

  /// Tells an inpainting model what to keep, in every row: mask [B, 1, H, W], 1 where the picture
  /// is new, and the latents of the picture with those parts blank.
  virtual void add_masked_picture(Conditions& conditions, const at::Tensor& mask,
                                  const at::Tensor& latents) const;

  /// A new control network, to be trained: with it the model equals the model without. Throws also
  /// Error(invalid_argument) where the model's latents do not allow it.
  virtual std::unique_ptr<ControlNetwork> create_control(ControlKind kind,
                                                         std::uint64_t seed) const;

  /// A control network from the tensors of an adapter file. Throws also Error(mismatch) that names
  /// what does not fit.
  virtual std::unique_ptr<ControlNetwork> control_from_tensors(
      const std::map<std::string, at::Tensor>& tensors, const std::string& where) const;

  /// A ControlNet from a folder as diffusers writes it, or one of its safetensors files beside its
  /// config.json. Throws also Error(not_found | bad_format), and Error(mismatch) for one of another
  /// kind of model.
  virtual std::unique_ptr<ControlNetwork> open_control(const std::filesystem::path& path) const;

  // Memory: the bytes that are held at a time.

  /// Activations of a training step, block by block.
  virtual std::vector<StepBlock> training_step(const TrainingStepShape& shape) const = 0;

  /// Encoding one picture, and decoding one, in tiles where the options say so; and a denoising
  /// step of `rows` rows without gradients.
  virtual double encoding_bytes(PictureSize size) const = 0;
  virtual double decoding_bytes(PictureSize size) const = 0;
  virtual double denoising_bytes(PictureSize size, std::int64_t rows) const = 0;

  /// From now on pictures are encoded and decoded one by one, in tiles of this side: LoadOptions::
  /// tile. Does nothing in models without tiles.
  virtual void code_in_tiles(std::int64_t) {}

  // Saving.

  /// Writes the model as a folder. What is not replaced comes from the model's files, unchanged.
  /// Throws Error(non_finite) that names the tensor, Error(invalid_argument) when the folder is the
  /// model's own, and Error(io | no_space).
  virtual void save(const std::filesystem::path& folder, const SaveModelOptions& options) const = 0;

  /// Writes a model from a single file as a single file of the same layout. Throws as save, and
  /// Error(unsupported) for a model from a folder.
  virtual void save_file(const std::filesystem::path& file, const Replacements& replacements) const;

  /// What the files of other programs call layers, by "network.layer", where it is another name.
  virtual std::map<std::string, std::string> class_names() const { return {}; }

  // The same for all models.

  /// The conditions of pictures: prompts and frames, as many of each.
  Conditions conditions(std::span<const std::string> prompts, std::span<const PictureFrame> frames,
                        std::int64_t clip_skip) const;

  /// What a control network sees of pictures [B, 3, H, W] in [0, 1]: themselves, or their latents
  /// [B, channels, h, w], on the model's device.
  at::Tensor control_view(const ControlNetwork& network, const at::Tensor& pictures) const;

  /// Which of these prompts are too long for the text encoder, each when it is asked for the first
  /// time: whoever asks tells the user. Sampling logs a warning for those of its request. Several
  /// threads may call it.
  std::vector<CutPrompt> newly_cut(std::span<const std::string> prompts) const;

 protected:
  TextToImageModel();
  TextToImageModel(TextToImageModel&&) = default;
  TextToImageModel& operator=(TextToImageModel&&) = default;

 private:
  struct ToldPrompts;
  std::shared_ptr<ToldPrompts> told_;  ///< asked for in newly_cut
};

/// The networks of a model that adapters can change.
adapt::Components adaptable(const TextToImageModel& model);

/// The tensors of the networks as they are in memory, for models whose weights have been trained.
Replacements trained_tensors(const TextToImageModel& model);

}  // namespace ringlet::pipeline
