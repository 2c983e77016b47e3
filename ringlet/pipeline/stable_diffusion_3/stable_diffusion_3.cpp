#include "ringlet/pipeline/stable_diffusion_3/stable_diffusion_3.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include <ATen/ops/cat.h>
#include <ATen/ops/pad.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/flow_process.h"
#include "ringlet/pipeline/model_folder.h"

namespace ringlet::pipeline {
namespace {

/// Layers of the transformer that are never narrowed: few weights, whose errors reach every token.
const std::vector<std::string> kSd3WideLayers = {"pos_embed.", "time_text_embed.",
                                                 "context_embedder.", "norm_out.", "proj_out."};

models::Sd3Config sd3_config(const StableDiffusion3Files& files) {
  const ModelComponent& part = files.parts.at("transformer");
  return models::Sd3Config::from_json(part.config, part.where);
}

}  // namespace

StableDiffusion3 StableDiffusion3::open(const std::filesystem::path& path,
                                        const LoadOptions& options) {
  return nn::with_ringlet_errors(path.string(), [&] {
    return StableDiffusion3(find_stable_diffusion_3(path, options.files), options);
  });
}

StableDiffusion3::StableDiffusion3(StableDiffusion3Files files, const LoadOptions& load)
    : TransformerModel(
          "transformer", load,
          // Its pipelines leave the spacing to the scheduler, also where its shift depends
          // on the size.
          flow_process(files, sd3_config(files).patch_size, diffusion::Spacing::linspace),
          files.scheduler_where),
      files_(std::move(files)),
      t5_tokens_(load.files.text_tokens > 0 ? load.files.text_tokens
                                            : sd3_config(files_).t5_tokens) {
  for (const auto& [name, tokenizer] :
       {std::pair{"text_encoder", "tokenizer"}, std::pair{"text_encoder_2", "tokenizer_2"}}) {
    const ModelComponent& part = files_.parts.at(name);
    const nn::WeightSource source = source_of(part);
    clips_.push_back(open_clip(source, part, files_.tokenizers.at(tokenizer)));
    add_network(name, part, source);
  }
  if (files_.has_t5()) {
    const ModelComponent& part = files_.parts.at("text_encoder_3");
    const nn::WeightSource source = source_of(part);
    t5_.emplace(open_t5(source, part, files_.tokenizers.at("tokenizer_3"), t5_tokens_));
    add_network("text_encoder_3", part, source);
  } else {
    log(LogLevel::warning, files_.path.string() +
                               ": there is no third text encoder (T5); zeros take its place, so "
                               "long prompts and lettering are followed less");
  }
  const ModelComponent& part = files_.parts.at("transformer");
  const nn::WeightSource source = source_of(part, kSd3WideLayers);
  transformer_ = std::make_unique<models::Sd3Transformer2DModel>(source, sd3_config(files_));
  add_network("transformer", part, source);
  open_autoencoder(files_.parts.at("vae"));
  check_order_of_clips();
  check_parts_fit();
  finish_denoiser(part);
}

/// Exchanged, both still fit: their widths add up to the same.
void StableDiffusion3::check_order_of_clips() const {
  const models::ClipTextConfig &large = clips_.front().encoder.config(),
                               &giant = clips_.back().encoder.config();
  if (large.hidden_size > giant.hidden_size ||
      (large.hidden_act == "gelu" && giant.hidden_act == "quick_gelu"))
    throw Error(ErrorCode::mismatch, files_.parts.at("text_encoder").where,
                "the first text encoder is CLIP-G and the second CLIP-L, in the wrong order",
                "exchange text_encoder and text_encoder_2");
}

void StableDiffusion3::check_parts_fit() const {
  const models::Sd3Config& config = transformer_->config();
  const auto mismatch = [&](const std::string& part, const std::string& what) {
    throw Error(ErrorCode::mismatch, files_.parts.at(part).where, what,
                "the parts come from different models");
  };
  std::int64_t pooled = 0, width = 0;
  for (const TextStage& stage : clips_) {
    pooled += stage.encoder.config().projection_dim;
    width += stage.encoder.config().hidden_size;
    if (!stage.encoder.config().with_projection)
      mismatch(&stage == clips_.data() ? "text_encoder" : "text_encoder_2",
               "Stable Diffusion 3 takes text encoders with a projection "
               "(CLIPTextModelWithProjection)");
  }
  if (pooled != config.pooled_width)
    mismatch("transformer", "the transformer takes pooled text of width " +
                                std::to_string(config.pooled_width) +
                                ", but the text encoders give " + std::to_string(pooled));
  if (width > config.text_width)
    mismatch("transformer", "the transformer takes text of width " +
                                std::to_string(config.text_width) +
                                ", but the text encoders give " + std::to_string(width));
  if (t5_ && t5_->encoder.config().width != config.text_width)
    mismatch("text_encoder_3",
             "T5 gives text of width " + std::to_string(t5_->encoder.config().width) +
                 ", but the transformer takes " + std::to_string(config.text_width));
  if (vae().config().latent_channels != config.in_channels)
    mismatch("vae",
             "the autoencoder makes latents of " + std::to_string(vae().config().latent_channels) +
                 " channels, but the transformer takes " + std::to_string(config.in_channels));
}

ModelDefaults StableDiffusion3::defaults() const {
  constexpr std::int64_t kSteps = 28;  // these three of diffusers' pipeline
  constexpr double kGuidance = 7.0;
  ModelDefaults defaults;
  defaults.size =
      PictureSize::square(transformer_->config().sample_size * vae().config().downscale());
  defaults.steps = kSteps;
  defaults.guidance = kGuidance;
  defaults.sampler = diffusion::default_sampler(*noise_process());
  return defaults;
}

PromptTokens StableDiffusion3::tokens(const std::string& prompt) const {
  if (t5_) return prompt_tokens(*t5_->tokenizer, prompt, t5_->length);
  return prompt_tokens(*clips_.front().tokenizer, prompt,
                       clips_.front().encoder.config().max_position_embeddings);
}

std::int64_t StableDiffusion3::text_layers() const {
  return clips_.front().encoder.config().num_hidden_layers;
}

std::int64_t StableDiffusion3::all_tokens() const {
  return clips_.front().encoder.config().max_position_embeddings + t5_tokens_;
}

Conditions StableDiffusion3::encode_prompts(std::span<const std::string> prompts,
                                            std::int64_t clip_skip) const {
  const std::int64_t width = transformer_->config().text_width;
  enter_text_encoders();
  const PooledText text = run_both(clips_, prompts, clip_skip, options().device);
  const at::Tensor clip = at::pad(text.embeddings, {0, width - text.embeddings.size(2)});
  const at::Tensor t5 = t5_ ? run(*t5_, prompts, options().device)
                            : at::zeros({clip.size(0), t5_tokens_, width}, clip.options());
  rest_text_encoders();
  Conditions conditions;
  // Text encoders that learn compute in fp32.
  conditions.set("text", at::cat({clip.to(options().precision), t5.to(options().precision)}, 1));
  conditions.set("pooled", at::cat(text.pooled, -1).to(options().precision));
  return conditions;
}

at::Tensor StableDiffusion3::predict(const at::Tensor& x, const at::Tensor& timesteps,
                                     const Conditions& conditions,
                                     const ControlInput* control) const {
  memory_of("transformer").enter();
  const at::Tensor latents = x.to(options().precision);
  const models::Sd3Conditions seen{timesteps.expand(x.size(0)), conditions.get("text"),
                                   conditions.get("pooled"),
                                   control_tokens(control, first_layer(), latents)};
  return transformer_->forward(latents, seen).to(at::kFloat);
}

FirstLayer StableDiffusion3::first_layer() const {
  const models::Sd3Config& config = transformer_->config();
  return {.model = files_.kind,
          .downscale = vae().config().downscale(),
          .latent_channels = config.in_channels,
          .kernel = config.patch_size,
          .stride = config.patch_size,
          .width = config.width()};
}

Json StableDiffusion3::model_index() const {
  Json index = {{"_class_name", "StableDiffusion3Pipeline"},
                {"transformer", {"diffusers", "SD3Transformer2DModel"}},
                {"vae", {"diffusers", "AutoencoderKL"}},
                {"text_encoder", {"transformers", "CLIPTextModelWithProjection"}},
                {"tokenizer", {"transformers", "CLIPTokenizer"}},
                {"text_encoder_2", {"transformers", "CLIPTextModelWithProjection"}},
                {"tokenizer_2", {"transformers", "CLIPTokenizer"}},
                {"text_encoder_3", {nullptr, nullptr}},
                {"tokenizer_3", {nullptr, nullptr}},
                {"scheduler", scheduler_entry(files_, "FlowMatchEulerDiscreteScheduler")}};
  if (files_.has_t5()) {
    index["text_encoder_3"] = {"transformers", "T5EncoderModel"};
    index["tokenizer_3"] = {"transformers", "T5TokenizerFast"};
  }
  return index;
}

TransformerShape StableDiffusion3::transformer_shape(PictureSize latents) const {
  return TransformerShape::of(transformer_->config(), latents, all_tokens());
}

PassBlocks StableDiffusion3::text_blocks(PassShape shape) const {
  shape.text_length = clips_.front().encoder.config().max_position_embeddings;
  PassBlocks blocks;
  const auto add = [&blocks](const PassBlocks& more) {
    std::ranges::copy(more, std::back_inserter(blocks));
  };
  for (const TextStage& stage : clips_) add(text_pass(stage.encoder.config(), shape));
  if (t5_) add(t5_pass(t5_->encoder.config(), shape.rows, t5_tokens_));
  return blocks;
}

}  // namespace ringlet::pipeline
