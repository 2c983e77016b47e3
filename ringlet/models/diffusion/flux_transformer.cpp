#include "ringlet/models/diffusion/flux_transformer.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/error.h"
#include "ringlet/models/diffusion/feed_forward.h"
#include "ringlet/models/diffusion/rotary.h"
#include "ringlet/models/diffusion/text_width.h"
#include "ringlet/nn/recomputed_inputs.h"

namespace ringlet::models {
namespace {

constexpr const char* kNetwork = "transformer of FLUX";
constexpr std::int64_t kHiddenFactor = 4;

HeadsConfig heads_of(const FluxConfig& c) {
  return {.width = c.width(), .heads = c.heads, .head_width = c.head_width, .rms_norm = true};
}

}  // namespace

FluxSingleTransformerBlock::FluxSingleTransformerBlock(const nn::WeightSource& s,
                                                       const HeadsConfig& c)
    : block_(s),
      norm_(s.at("norm"), c.width, 1),
      attn_(s.at("attn"), c, HeadProjections::kOwn),
      proj_mlp_(s.at("proj_mlp"), c.width, kHiddenFactor * c.width),
      proj_out_(s.at("proj_out"), c.inner_width() + kHiddenFactor * c.width, c.width) {}

at::Tensor FluxSingleTransformerBlock::forward(const at::Tensor& x, const at::Tensor& time,
                                               const at::Tensor& rotations) const {
  return block_.run([this](const auto& in) { return compute(in[0], in[1], in[2]); },
                    {x, time, rotations});
}

at::Tensor FluxSingleTransformerBlock::compute(const at::Tensor& x, const at::Tensor& time,
                                               const at::Tensor& rotations) const {
  const NormedTokens tokens{x, norm_(time).front()};
  const auto of_tokens = tokens.into([this](const at::Tensor& normed) {
    const Heads heads = attn_(normed);
    return std::vector<at::Tensor>{heads.query, heads.key, heads.value, proj_mlp_(normed)};
  });
  const Heads heads{.query = of_tokens[0], .key = of_tokens[1], .value = of_tokens[2]};
  const at::Tensor attended = attend({{attn_, heads}}, rotations);
  const auto both = [](const auto& in) { return at::cat({in[0], gelu_tanh(in[1])}, -1); };
  return add_gated(x, tokens.modulation,
                   nn::use_recomputed(both, {attended, of_tokens[3]}, proj_out_));
}

FluxTransformer2DModel::FluxTransformer2DModel(const nn::WeightSource& s, const FluxConfig& c)
    : config_(c),
      time_text_embed_(s.at("time_text_embed"), c.width(), c.pooled_width, c.guidance_embeds),
      context_embedder_(s.at("context_embedder"), c.text_width, c.width()),
      x_embedder_(s.at("x_embedder"), c.in_channels, c.width()),
      norm_out_(s.at("norm_out"), c.width()),
      proj_out_(s.at("proj_out"), c.width(), c.out_channels) {
  for (std::int64_t i = 0; i < c.layers; ++i)
    transformer_blocks_.emplace_back(s.at("transformer_blocks").at(i),
                                     JointBlockConfig{.heads = heads_of(c)});
  for (std::int64_t i = 0; i < c.single_layers; ++i)
    single_transformer_blocks_.emplace_back(s.at("single_transformer_blocks").at(i), heads_of(c));
}

void FluxTransformer2DModel::check(const FluxConditions& in) const {
  check_width(in.text, config_.text_width, kNetwork, "token embeddings");
  check_width(in.pooled, config_.pooled_width, kNetwork, "pooled text");
  if (config_.guidance_embeds && !in.guidance.defined())
    throw Error(ErrorCode::invalid_argument, Field("guidance"),
                "this model was distilled with guidance and is told its scale",
                "give a scale; 3.5 is usual for FLUX.1 dev");
  if (!config_.guidance_embeds && in.guidance.defined())
    throw Error(ErrorCode::invalid_argument, Field("guidance"),
                "this model is not told a guidance scale", "leave it out, as for FLUX.1 schnell");
}

at::Tensor FluxTransformer2DModel::forward(const at::Tensor& packed,
                                           const FluxConditions& in) const {
  check(in);
  const at::ScalarType type = packed.scalar_type();
  const at::Tensor guidance = in.guidance.defined() ? 1000.0 * in.guidance : at::Tensor();
  const at::Tensor time = time_text_embed_.forward(in.timesteps, in.pooled.to(type), guidance);
  const std::int64_t words = in.text.size(1);
  const at::Tensor origin = at::zeros({words, 3}, in.positions.options());
  const at::Tensor turns = rotations(at::cat({origin, in.positions}), config_.axes);

  TokenStreams tokens{x_embedder_(packed), context_embedder_(in.text.to(type))};
  if (in.control.defined()) tokens.picture = tokens.picture + in.control;
  for (const JointTransformerBlock& block : transformer_blocks_)
    tokens = block.forward(tokens, time, turns);

  at::Tensor x = at::cat({tokens.text, tokens.picture}, 1);
  for (const FluxSingleTransformerBlock& block : single_transformer_blocks_)
    x = block.forward(x, time, turns);
  return norm_out_(x.narrow(1, words, packed.size(1)), time).into(proj_out_);
}

}  // namespace ringlet::models
