#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include <ATen/ops/cat.h>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/nn/attention.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion_control.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion_memory.h"
#include "ringlet/tokenizers/clip_tokenizer.h"

namespace ringlet::pipeline {
namespace {

/// Weights of a network that is trained around but not itself, in fp32: all in that type but the
/// kernels of convolutions, which Layer::pack widens into its own layouts. A wide copy besides
/// would stand in memory unused.
class PackedKernelsStore final : public nn::TensorStore {
 public:
  explicit PackedKernelsStore(std::shared_ptr<const nn::TensorStore> store)
      : store_(std::move(store)) {}
  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init& init) const override {
    std::optional<at::Tensor> found = store_->find(name, shape, init);
    constexpr std::int64_t kKernelAxes = 4;
    if (found && found->dim() != kKernelAxes) found = found->to(at::kFloat);
    return found;
  }
  void release() const override { store_->release(); }
  std::vector<std::string> names() const override { return store_->names(); }
  std::string description() const override { return store_->description(); }

 private:
  std::shared_ptr<const nn::TensorStore> store_;
};

/// Layers of the U-Net that are never narrowed. They are less than half a percent of its weights,
/// and an error in them reaches every pixel of every block: the time, and latents on their way in
/// and out.
const std::vector<std::string> kWideLayers = {"conv_in.", "conv_out.", "time_embedding.",
                                              "add_embedding."};

nn::WeightSource source_of(const ModelComponent& part, const LoadOptions& options) {
  const bool trainable = options.trainable.contains(part.role);
  // The autoencoder always in fp32: those of Stable Diffusion overflow in fp16, and they run once
  // per image.
  const bool wide = part.role == NetworkRole::autoencoder || trainable;
  const at::ScalarType type = wide ? at::kFloat : options.precision;
  const bool narrow = options.keeps_storage_type(type) && !trainable;
  using nn::WeightStorage;
  const bool denoiser = part.role == NetworkRole::denoiser;
  const WeightStorage storage = denoiser ? options.storage : WeightStorage::as_stored;
  // A training step reads the denoiser's matrices twice, and has less to compute with them.
  const bool for_step = options.for_training && !options.low_memory && denoiser;
  const bool wraps = narrow && (storage == WeightStorage::fp32 ||
                                (storage == WeightStorage::as_stored && for_step));
  return nn::WeightSource(wraps ? std::make_shared<PackedKernelsStore>(part.weights) : part.weights,
                          {.dtype = type,
                           .device = options.device,
                           .keep_storage_type = narrow,
                           .trainable = trainable,
                           .at_home = !options.device.is_cpu() && !trainable,
                           .storage = wraps ? WeightStorage::as_stored : storage,
                           .wide_layers = kWideLayers});
}

/// All that has been read of a network, when it is complete.
ModelNetwork network_of(const ModelComponent& part, const nn::WeightSource& source) {
  const nn::WeightOptions options = source.options();
  ModelNetwork network{part.role, source.finish(), part.config};
  network.memory = std::make_shared<nn::NetworkMemory>(part.weights, options, network.index);
  part.weights->release();  // what was widened is not read again
  return network;
}

std::shared_ptr<const diffusion::NoiseProcess> load_noise_process(const ModelFiles& files) {
  auto process = diffusion::open_noise_process(files.scheduler, files.scheduler_where);
  for (const std::string& warning : process->warnings())
    log(LogLevel::warning, files.scheduler_where + ": " + warning);
  return process;
}

TextStage load_text(const ModelComponent& part, const TokenizerFiles& tokenizer,
                    const LoadOptions& options, ModelNetwork& network) {
  const nn::WeightSource source = source_of(part, options);
  const auto config = models::ClipTextConfig::from_json(part.config, part.where);
  TextStage stage{std::make_shared<tokenizers::ClipTokenizer>(
                      tokenizers::ClipTokenizer::open(tokenizer.folder, tokenizer.pad_token)),
                  models::ClipTextModel(source, config)};
  network = network_of(part, source);
  return stage;
}

/// The parts of a folder may each fit their configuration and still come from different models.
void check_parts_fit(const StableDiffusionFiles& files, const models::UNetConfig& unet,
                     const std::vector<TextStage>& text, const models::VaeConfig& vae) {
  const auto mismatch = [&](const std::string& what) {
    throw Error(ErrorCode::mismatch, files.parts.at("unet").where, what,
                "the parts come from different models");
  };
  if (unet.text_time != files.sdxl())
    mismatch(std::string("the U-Net ") + (unet.text_time ? "needs" : "does not take") +
             " a second text encoder");
  std::int64_t width = 0;
  for (const TextStage& stage : text) width += stage.encoder.config().hidden_size;
  for (const models::UNetLevel& level : unet.levels)
    if (level.context_width != width)
      mismatch("the U-Net takes text of width " + std::to_string(level.context_width) +
               ", but the text encoders give " + std::to_string(width));
  constexpr std::int64_t kSizeNumbers = 6;
  const std::int64_t pooled = text.back().encoder.config().projection_dim;
  if (unet.text_time &&
      unet.projection_input_dim != pooled + kSizeNumbers * unet.addition_time_embed_dim)
    mismatch("the U-Net does not take pooled text of width " + std::to_string(pooled));
  const std::int64_t in = files.inpainting ? 2 * vae.latent_channels + 1 : vae.latent_channels;
  if (unet.in_channels != in || unet.out_channels != vae.latent_channels)
    mismatch("the U-Net does not take latents of " + std::to_string(vae.latent_channels) +
             " channels");
}

double bytes_of(double numbers, at::ScalarType type) {
  return numbers * static_cast<double>(c10::elementSize(type));
}

}  // namespace

StableDiffusion StableDiffusion::open(const std::filesystem::path& path,
                                      const LoadOptions& options) {
  return nn::with_ringlet_errors(path.string(), [&] {
    return StableDiffusion(find_stable_diffusion(path, options.files), options);
  });
}

StableDiffusion::StableDiffusion(StableDiffusionFiles files, const LoadOptions& options)
    : files_(std::move(files)), options_(options), noise_process_(load_noise_process(files_)) {
  for (const auto& [name, tokenizer] :
       {std::pair{"text_encoder", "tokenizer"}, std::pair{"text_encoder_2", "tokenizer_2"}})
    if (files_.parts.contains(name))
      text_.push_back(load_text(files_.parts.at(name), files_.tokenizers.at(tokenizer), options,
                                networks_[name]));

  const ModelComponent& unet_part = files_.parts.at("unet");
  const nn::WeightSource unet = source_of(unet_part, options);
  unet_ = std::make_unique<models::UNet>(
      unet, models::UNetConfig::from_json(unet_part.config, unet_part.where));
  networks_["unet"] = network_of(unet_part, unet);

  const ModelComponent& vae_part = files_.parts.at("vae");
  const auto vae_config = models::VaeConfig::from_json(vae_part.config, vae_part.where);
  const nn::WeightSource vae = source_of(vae_part, options);
  vae_ = std::make_unique<models::AutoencoderKL>(vae, vae_config);
  networks_["vae"] = network_of(vae_part, vae);
  check_parts_fit(files_, unet_->config(), text_, vae_config);

  // The autoencoder computes as much with a kernel as its layout takes to make, and rests most of
  // the time: it stays in its file.
  if (!options.trainable.contains(NetworkRole::denoiser))
    networks_["unet"].index.pack(*unet_part.weights, options.weight_use());
  networks_["unet"].memory->offload(options.offload_layers.value_or(0));
}

nn::NetworkMemory& StableDiffusion::memory_of(const std::string& network) const {
  return *networks_.at(network).memory;
}

/// A network that rests gives its memory back: always on the CPU, where that costs little.
void StableDiffusion::rest(const std::string& network, IdleNetworks from) const {
  if (options_.device.is_cpu() || options_.idle_networks() >= from) memory_of(network).leave();
}

ModelDefaults StableDiffusion::defaults() const {
  constexpr double kGuidance = 7.5, kXlGuidance = 5.0;  // of diffusers' pipelines
  ModelDefaults defaults;
  defaults.size = PictureSize::square(unet_->config().sample_size * size_unit());
  defaults.guidance = files_.sdxl() ? kXlGuidance : kGuidance;
  defaults.sampler = diffusion::default_sampler(*noise_process_);
  return defaults;
}

nn::Shape StableDiffusion::latent_shape(PictureSize size) const {
  const PictureSize latents = size.divided_by(size_unit());
  return {vae_->config().latent_channels, latents.height, latents.width};
}

PictureSize StableDiffusion::picture_size(at::IntArrayRef latents) const {
  return {latents[latents.size() - 1] * size_unit(), latents[latents.size() - 2] * size_unit()};
}

models::VaeOptions StableDiffusion::coding() const {
  const std::int64_t usual = options_.low_memory ? vae_->config().sample_size : 0;
  const std::int64_t tile = options_.tile > 0 ? options_.tile : usual;
  return {.slicing = tile > 0, .tile = tile};
}

LatentPosterior StableDiffusion::encode(const at::Tensor& pictures) const {
  memory_of("vae").enter();
  const models::LatentDistribution posterior = vae_->encode(pictures.to(options_.device), coding());
  rest("vae", IdleNetworks::coders_leave);
  const at::Tensor deviation = (0.5 * posterior.log_variance).exp();
  return {vae_->scale(posterior.mean), deviation * vae_->config().scaling_factor};
}

at::Tensor StableDiffusion::decode(const at::Tensor& latents) const {
  rest("unet", IdleNetworks::all_leave);  // it comes back with its next step
  memory_of("vae").enter();
  at::Tensor pictures =
      vae_->decode(vae_->unscale(latents.to(options_.device, at::kFloat)), coding());
  rest("vae", IdleNetworks::coders_leave);
  return pictures;
}

PromptTokens StableDiffusion::tokens(const std::string& prompt) const {
  const TextStage& stage = text_.front();
  PromptTokens found;
  found.limit = stage.encoder.config().max_position_embeddings;
  tokenizers::EncodedPrompt encoded = stage.tokenizer->encode_prompt(prompt, found.limit);
  found.used = encoded.used;
  found.total = encoded.cut.empty()
                    ? encoded.used
                    : static_cast<std::int64_t>(stage.tokenizer->ids(prompt).size());
  found.cut = std::move(encoded.cut);
  return found;
}

std::int64_t StableDiffusion::text_layers() const {
  return text_.front().encoder.config().num_hidden_layers;
}

Conditions StableDiffusion::encode_prompts(std::span<const std::string> prompts,
                                           std::int64_t clip_skip) const {
  const auto each_encoder = [this](const auto& act) {
    for (const auto& [name, part] : files_.parts)
      if (part.role == NetworkRole::text_encoder) act(name);
  };
  each_encoder([this](const std::string& name) { memory_of(name).enter(); });
  TextConditions text = pipeline::encode_prompts(text_, prompts, clip_skip, options_.device);
  each_encoder([this](const std::string& name) { rest(name, IdleNetworks::coders_leave); });
  Conditions conditions;
  // Text encoders that learn compute in fp32.
  conditions.set("text", text.embeddings.to(options_.precision));
  if (files_.sdxl()) conditions.set("pooled", std::move(text.pooled));
  return conditions;
}

Conditions StableDiffusion::without_prompt(const Conditions& positive,
                                           std::int64_t clip_skip) const {
  return files_.zero_empty_negative ? positive.zeros()
                                    : TextToImageModel::without_prompt(positive, clip_skip);
}

void StableDiffusion::add_sizes(Conditions& conditions,
                                std::span<const PictureFrame> frames) const {
  if (!files_.sdxl()) return;
  std::vector<at::Tensor> sizes;
  for (const PictureFrame& frame : frames)
    sizes.push_back(models::size_conditions(frame.original, frame.left, frame.top, frame.size));
  conditions.set("sizes", nn::to_device(at::cat(sizes), options_.device));
}

at::Tensor StableDiffusion::predict(const at::Tensor& x, const at::Tensor& timesteps,
                                    const Conditions& conditions,
                                    const ControlInput* control) const {
  memory_of("unet").enter();
  const at::Tensor masked = conditions.get("masked");
  const at::Tensor latents =
      (masked.defined() ? at::cat({x, masked}, 1) : x).to(options_.precision);
  const at::Tensor times = timesteps.expand(x.size(0));
  const at::Tensor text = conditions.get("text");
  const models::AddedConditions added{conditions.get("pooled"), conditions.get("sizes")};
  models::UNetResiduals residuals;
  if (control != nullptr) {
    const auto* network = dynamic_cast<const UNetControl*>(&control->network);
    if (network == nullptr)
      throw Error(ErrorCode::mismatch, files_.path.string(),
                  "the control network was made for another kind of model");
    residuals = (*network)(latents, times, text, &added, control->pictures, control->strength);
  }
  return unet_->forward(latents, times, text, &added, &residuals).to(at::kFloat);
}

void StableDiffusion::add_masked_picture(Conditions& conditions, const at::Tensor& mask,
                                         const at::Tensor& latents) const {
  if (!inpaints()) return TextToImageModel::add_masked_picture(conditions, mask, latents);
  // Nearest neighbour, as diffusers brings masks to the latents' size.
  const std::int64_t unit = size_unit();
  const at::Tensor small = mask.slice(2, 0, std::nullopt, unit).slice(3, 0, std::nullopt, unit);
  conditions.set("masked", at::cat({small.to(options_.device), latents}, 1));
}

std::unique_ptr<ControlNetwork> StableDiffusion::create_control(ControlKind kind,
                                                                std::uint64_t seed) const {
  return UNetControl::create(kind, *this, seed);
}

std::unique_ptr<ControlNetwork> StableDiffusion::control_from_tensors(
    const std::map<std::string, at::Tensor>& tensors, const std::string& where) const {
  return UNetControl::from_tensors(tensors, *this, where);
}

std::unique_ptr<ControlNetwork> StableDiffusion::open_control(
    const std::filesystem::path& path) const {
  return UNetControl::open(path, *this);
}

std::vector<StepBlock> StableDiffusion::training_step(const TrainingStepShape& shape) const {
  const models::UNetConfig& config = unet_->config();
  const models::UNetLevel& first = config.levels.front();
  const PassShape pass{
      .rows = shape.rows,
      .latents = shape.size.divided_by(size_unit()),
      .text_length = text_.front().encoder.config().max_position_embeddings,
      .trained = shape.full,
      .precision = options_.precision,
      .fused_attention = nn::attention_is_fused(
          first.channels / first.heads,
          at::TensorOptions(config.upcast_attention ? at::kFloat : options_.precision)
              .device(options_.device))};
  PassBlocks blocks;
  if (shape.text)
    for (const TextStage& stage : text_)
      std::ranges::copy(text_pass(stage.encoder.config(), pass), std::back_inserter(blocks));
  if (shape.controlnet)
    std::ranges::copy(controlnet_pass(config, pass), std::back_inserter(blocks));
  std::ranges::copy(unet_pass(config, pass, shape.adapters), std::back_inserter(blocks));
  for (StepBlock& block : blocks)
    for (double* numbers : {&block.before, &block.inside, &block.passing})
      *numbers = bytes_of(*numbers, options_.precision);
  return blocks;
}

// The autoencoder always computes in fp32.
/// The part of a picture that the autoencoder sees at a time.
PictureSize StableDiffusion::coded_at_once(PictureSize size) const {
  const std::int64_t side = coding().tile;
  if (side == 0) return size;
  return {std::min(size.width, side), std::min(size.height, side)};
}

double StableDiffusion::encoding_bytes(PictureSize size) const {
  return bytes_of(vae_encoding(vae_->config(), coded_at_once(size)), at::kFloat);
}

double StableDiffusion::decoding_bytes(PictureSize size) const {
  // Tiles' results lie beside each other, in rows, and in the picture.
  constexpr double kColours = 3.0, kCopies = 3.0;
  const double joined = coding().tile == 0 ? 0.0
                                           : kColours * kCopies * static_cast<double>(size.width) *
                                                 static_cast<double>(size.height);
  return bytes_of(vae_decoding(vae_->config(), 1, coded_at_once(size)) + joined, at::kFloat);
}

double StableDiffusion::denoising_bytes(PictureSize size, std::int64_t rows) const {
  const PassShape shape{.rows = rows, .latents = size.divided_by(size_unit())};
  return bytes_of(unet_inference(unet_->config(), shape), options_.precision);
}

}  // namespace ringlet::pipeline
