#include "ringlet/pipeline/stable_diffusion/stable_diffusion.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include <ATen/ops/cat.h>

#include "ringlet/core/error.h"
#include "ringlet/nn/attention.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion_control.h"
#include "ringlet/pipeline/stable_diffusion/stable_diffusion_memory.h"

namespace ringlet::pipeline {
namespace {

/// Layers of the U-Net that are never narrowed. They are less than half a percent of its weights,
/// and an error in them reaches every pixel of every block: the time, and latents on their way in
/// and out.
const std::vector<std::string> kWideLayers = {"conv_in.", "conv_out.", "time_embedding.",
                                              "add_embedding."};

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

}  // namespace

StableDiffusion StableDiffusion::open(const std::filesystem::path& path,
                                      const LoadOptions& options) {
  return nn::with_ringlet_errors(path.string(), [&] {
    return StableDiffusion(find_stable_diffusion(path, options.files), options);
  });
}

StableDiffusion::StableDiffusion(StableDiffusionFiles files, const LoadOptions& options)
    : LatentModel("unet", options,
                  diffusion::open_noise_process(files.scheduler, files.scheduler_where),
                  files.scheduler_where),
      files_(std::move(files)) {
  for (const auto& [name, tokenizer] :
       {std::pair{"text_encoder", "tokenizer"}, std::pair{"text_encoder_2", "tokenizer_2"}})
    if (files_.parts.contains(name)) {
      const ModelComponent& part = files_.parts.at(name);
      const nn::WeightSource source = source_of(part);
      text_.push_back(open_clip(source, part, files_.tokenizers.at(tokenizer)));
      add_network(name, part, source);
    }
  const ModelComponent& part = files_.parts.at("unet");
  const nn::WeightSource source = source_of(part, kWideLayers);
  unet_ = std::make_unique<models::UNet>(source,
                                         models::UNetConfig::from_json(part.config, part.where));
  add_network("unet", part, source);
  open_autoencoder(files_.parts.at("vae"));
  check_parts_fit(files_, unet_->config(), text_, vae().config());
  finish_denoiser(part);
}

ModelDefaults StableDiffusion::defaults() const {
  constexpr double kGuidance = 7.5, kXlGuidance = 5.0;  // of diffusers' pipelines
  ModelDefaults defaults;
  defaults.size = PictureSize::square(unet_->config().sample_size * size_unit());
  defaults.guidance = files_.sdxl() ? kXlGuidance : kGuidance;
  defaults.sampler = diffusion::default_sampler(*noise_process());
  return defaults;
}

PromptTokens StableDiffusion::tokens(const std::string& prompt) const {
  return prompt_tokens(*text_.front().tokenizer, prompt,
                       text_.front().encoder.config().max_position_embeddings);
}

std::int64_t StableDiffusion::text_layers() const {
  return text_.front().encoder.config().num_hidden_layers;
}

Conditions StableDiffusion::encode_prompts(std::span<const std::string> prompts,
                                           std::int64_t clip_skip) const {
  enter_text_encoders();
  TextConditions text = pipeline::encode_prompts(text_, prompts, clip_skip, options().device);
  rest_text_encoders();
  Conditions conditions;
  // Text encoders that learn compute in fp32.
  conditions.set("text", text.embeddings.to(options().precision));
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
  conditions.set("sizes", nn::to_device(at::cat(sizes), options().device));
}

at::Tensor StableDiffusion::predict(const at::Tensor& x, const at::Tensor& timesteps,
                                    const Conditions& conditions,
                                    const ControlInput* control) const {
  memory_of("unet").enter();
  const at::Tensor masked = conditions.get("masked");
  const at::Tensor latents =
      (masked.defined() ? at::cat({x, masked}, 1) : x).to(options().precision);
  const at::Tensor times = timesteps.expand(x.size(0));
  const at::Tensor text = conditions.get("text");
  const models::AddedConditions added{conditions.get("pooled"), conditions.get("sizes")};
  models::UNetResiduals residuals;
  if (control != nullptr) {
    if (const auto* network = dynamic_cast<const UNetControl*>(&control->network))
      residuals = (*network)(latents, times, text, &added, control->pictures, control->strength);
    else
      residuals.conv_in = control_features(*control, first_layer(*this), latents);
  }
  return unet_->forward(latents, times, text, &added, &residuals).to(at::kFloat);
}

void StableDiffusion::add_masked_picture(Conditions& conditions, const at::Tensor& mask,
                                         const at::Tensor& latents) const {
  if (!inpaints()) return TextToImageModel::add_masked_picture(conditions, mask, latents);
  // Nearest neighbour, as diffusers brings masks to the latents' size.
  const std::int64_t unit = size_unit();
  const at::Tensor small = mask.slice(2, 0, std::nullopt, unit).slice(3, 0, std::nullopt, unit);
  conditions.set("masked", at::cat({small.to(options().device), latents}, 1));
}

std::unique_ptr<ControlNetwork> StableDiffusion::create_control(ControlKind kind,
                                                                std::uint64_t seed) const {
  const std::string where = files_.path.string();
  if (inpaints())
    throw Error(ErrorCode::unsupported, where, "inpainting models do not support control networks");
  if (kind == ControlKind::controlnet) return UNetControl::create(*this, seed);
  return ControlFeatures::create(kind, first_layer(*this), options().device, seed, where);
}

std::unique_ptr<ControlNetwork> StableDiffusion::control_from_tensors(
    const std::map<std::string, at::Tensor>& tensors, const std::string& where) const {
  return ControlFeatures::from_tensors(tensors, first_layer(*this), options().device, where);
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
      .precision = options().precision,
      .fused_attention = nn::attention_is_fused(
          first.channels / first.heads,
          at::TensorOptions(config.upcast_attention ? at::kFloat : options().precision)
              .device(options().device))};
  PassBlocks blocks;
  if (shape.text)
    for (const TextStage& stage : text_)
      std::ranges::copy(text_pass(stage.encoder.config(), pass), std::back_inserter(blocks));
  if (shape.controlnet)
    std::ranges::copy(controlnet_pass(config, pass), std::back_inserter(blocks));
  std::ranges::copy(unet_pass(config, pass, shape.adapters), std::back_inserter(blocks));
  return in_bytes(std::move(blocks), options().precision);
}

double StableDiffusion::denoising_bytes(PictureSize size, std::int64_t rows) const {
  const PassShape shape{.rows = rows, .latents = size.divided_by(size_unit())};
  return bytes_of(unet_inference(unet_->config(), shape), options().precision);
}

}  // namespace ringlet::pipeline
