#include "ringlet/pipeline/flux/flux.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include <ATen/ops/full.h>

#include "ringlet/core/error.h"
#include "ringlet/models/diffusion/packed_latents.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/flow_process.h"
#include "ringlet/pipeline/model_folder.h"

namespace ringlet::pipeline {
namespace {

constexpr std::int64_t kFluxPatch = 2;  ///< latents along a side of a token
constexpr std::int64_t kLatentsPerToken = 4;

/// Layers of the transformer that are never narrowed: few weights, whose errors reach every token.
const std::vector<std::string> kFluxWideLayers = {"x_embedder.", "time_text_embed.",
                                                  "context_embedder.", "norm_out.", "proj_out."};

/// T5's tokens: dev's as diffusers has them, schnell's as it was trained and published.
std::int64_t t5_tokens_of(const FluxFiles& files, const LoadOptions& options) {
  constexpr std::int64_t kDev = 512, kSchnell = 256;
  if (options.files.text_tokens > 0) return options.files.text_tokens;
  return files.dev ? kDev : kSchnell;
}

}  // namespace

Flux Flux::open(const std::filesystem::path& path, const LoadOptions& options) {
  return nn::with_ringlet_errors(path.string(),
                                 [&] { return Flux(find_flux(path, options.files), options); });
}

Flux::Flux(FluxFiles files, const LoadOptions& load)
    : TransformerModel("transformer", load,
                       flow_process(files, kFluxPatch, diffusion::Spacing::trailing),
                       files.scheduler_where),
      files_(std::move(files)),
      t5_tokens_(t5_tokens_of(files_, load)) {
  const ModelComponent& clip = files_.parts.at("text_encoder");
  const nn::WeightSource clip_source = source_of(clip);
  clip_.emplace(open_clip(clip_source, clip, files_.tokenizers.at("tokenizer")));
  add_network("text_encoder", clip, clip_source);

  const ModelComponent& t5 = files_.parts.at("text_encoder_2");
  const nn::WeightSource t5_source = source_of(t5);
  t5_.emplace(open_t5(t5_source, t5, files_.tokenizers.at("tokenizer_2"), t5_tokens_));
  add_network("text_encoder_2", t5, t5_source);

  const ModelComponent& part = files_.parts.at("transformer");
  const nn::WeightSource source = source_of(part, kFluxWideLayers);
  transformer_ = std::make_unique<models::FluxTransformer2DModel>(
      source, models::FluxConfig::from_json(part.config, part.where));
  add_network("transformer", part, source);
  open_autoencoder(files_.parts.at("vae"));
  check_parts_fit();
  finish_denoiser(part);
}

void Flux::check_parts_fit() const {
  const models::FluxConfig& config = transformer_->config();
  const auto mismatch = [&](const std::string& part, const std::string& what) {
    throw Error(ErrorCode::mismatch, files_.parts.at(part).where, what,
                "the parts come from different models");
  };
  const std::int64_t pooled = clip_->encoder.config().with_projection
                                  ? clip_->encoder.config().projection_dim
                                  : clip_->encoder.config().hidden_size;
  if (pooled != config.pooled_width)
    mismatch("text_encoder", "CLIP gives pooled text of width " + std::to_string(pooled) +
                                 ", but the transformer takes " +
                                 std::to_string(config.pooled_width));
  if (t5_->encoder.config().width != config.text_width)
    mismatch("text_encoder_2",
             "T5 gives text of width " + std::to_string(t5_->encoder.config().width) +
                 ", but the transformer takes " + std::to_string(config.text_width));
  const std::int64_t packed = kLatentsPerToken * vae().config().latent_channels;
  if (config.out_channels != packed)
    mismatch("vae", "the autoencoder makes latents of " +
                        std::to_string(vae().config().latent_channels) +
                        " channels, but the transformer takes " +
                        std::to_string(config.out_channels / kLatentsPerToken));
  if (config.in_channels != packed)
    throw Error(ErrorCode::unsupported, files_.parts.at("transformer").where,
                "the transformer sees " + std::to_string(config.in_channels) +
                    " channels, as those of FLUX.1 Fill and FLUX.1 Depth or Canny do",
                "ringlet supports FLUX.1 dev and schnell");
}

ModelDefaults Flux::defaults() const {
  // Of diffusers' pipeline, and of schnell's card.
  constexpr std::int64_t kSide = 128, kDevSteps = 28, kSchnellSteps = 4;
  constexpr double kDevGuidance = 3.5, kNone = 1.0;
  ModelDefaults defaults;
  defaults.size = PictureSize::square(kSide * vae().config().downscale());
  defaults.steps = files_.dev ? kDevSteps : kSchnellSteps;
  defaults.guidance = files_.dev ? kDevGuidance : kNone;
  defaults.sampler = diffusion::default_sampler(*noise_process());
  return defaults;
}

PromptTokens Flux::tokens(const std::string& prompt) const {
  return prompt_tokens(*t5_->tokenizer, prompt, t5_->length);
}

Conditions Flux::encode_prompts(std::span<const std::string> prompts,
                                std::int64_t clip_skip) const {
  if (clip_skip != 1)
    throw Error(ErrorCode::invalid_argument, Field("clip_skip"),
                "FLUX takes no layer of CLIP, only its pooled output", "leave it out");
  enter_text_encoders();
  const at::Tensor pooled = run(*clip_, prompts, options().device).pooled;
  const at::Tensor text = run(*t5_, prompts, options().device);
  rest_text_encoders();
  Conditions conditions;
  // Text encoders that learn compute in fp32.
  conditions.set("text", text.to(options().precision));
  conditions.set("pooled", pooled.to(options().precision));
  return conditions;
}

void Flux::add_guidance(Conditions& conditions, double scale) const {
  if (!files_.dev) return;
  conditions.set("guidance", at::full({conditions.rows()}, scale,
                                      at::TensorOptions(at::kFloat).device(options().device)));
}

at::Tensor Flux::predict(const at::Tensor& x, const at::Tensor& timesteps,
                         const Conditions& conditions, const ControlInput* control) const {
  memory_of("transformer").enter();
  const std::int64_t height = x.size(2), width = x.size(3);
  const at::Tensor latents = x.to(options().precision);
  const models::FluxConditions seen{
      .timesteps = timesteps.expand(x.size(0)),
      .text = conditions.get("text"),
      .pooled = conditions.get("pooled"),
      .positions = models::packed_positions(height, width, x.device()),
      .guidance = conditions.get("guidance"),
      .control = control_tokens(control, first_layer(), latents)};
  const at::Tensor packed = models::pack_latents(latents);
  return models::unpack_latents(transformer_->forward(packed, seen), height, width).to(at::kFloat);
}

FirstLayer Flux::first_layer() const {
  return {.model = files_.kind,
          .downscale = vae().config().downscale(),
          .latent_channels = vae().config().latent_channels,
          .kernel = kFluxPatch,
          .stride = kFluxPatch,
          .width = transformer_->config().width()};
}

Json Flux::model_index() const {
  return {{"_class_name", "FluxPipeline"},
          {"transformer", {"diffusers", "FluxTransformer2DModel"}},
          {"vae", {"diffusers", "AutoencoderKL"}},
          {"text_encoder", {"transformers", "CLIPTextModel"}},
          {"tokenizer", {"transformers", "CLIPTokenizer"}},
          {"text_encoder_2", {"transformers", "T5EncoderModel"}},
          {"tokenizer_2", {"transformers", "T5TokenizerFast"}},
          {"scheduler", scheduler_entry(files_, "FlowMatchEulerDiscreteScheduler")}};
}

TransformerShape Flux::transformer_shape(PictureSize latents) const {
  return TransformerShape::of(transformer_->config(), latents, t5_tokens_);
}

PassBlocks Flux::text_blocks(PassShape shape) const {
  shape.text_length = clip_->encoder.config().max_position_embeddings;
  PassBlocks blocks = text_pass(clip_->encoder.config(), shape);
  std::ranges::copy(t5_pass(t5_->encoder.config(), shape.rows, t5_tokens_),
                    std::back_inserter(blocks));
  return blocks;
}

}  // namespace ringlet::pipeline
