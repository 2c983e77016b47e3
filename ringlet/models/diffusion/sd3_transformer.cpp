#include "ringlet/models/diffusion/sd3_transformer.h"

#include <algorithm>

#include "ringlet/models/diffusion/text_width.h"

namespace ringlet::models {
namespace {

constexpr const char* kWhere = "transformer of Stable Diffusion 3";

JointBlockConfig block_config(const Sd3Config& c, std::int64_t layer) {
  return {.heads = {.width = c.width(),
                    .heads = c.heads,
                    .head_width = c.head_width,
                    .rms_norm = c.rms_norm},
          .context_pre_only = layer + 1 == c.layers,
          .dual_attention =
              std::ranges::find(c.dual_attention_layers, layer) != c.dual_attention_layers.end()};
}

}  // namespace

Sd3Transformer2DModel::Sd3Transformer2DModel(const nn::WeightSource& s, const Sd3Config& c)
    : config_(c),
      pos_embed_(s.at("pos_embed"), {.channels = c.in_channels,
                                     .patch_size = c.patch_size,
                                     .width = c.width(),
                                     .table_side = c.table_side,
                                     .base_side = c.sample_size / c.patch_size}),
      time_text_embed_(s.at("time_text_embed"), c.width(), c.pooled_width, /*guided=*/false),
      context_embedder_(s.at("context_embedder"), c.text_width, c.width()),
      norm_out_(s.at("norm_out"), c.width()),
      proj_out_(s.at("proj_out"), c.width(), c.patch_size * c.patch_size * c.out_channels) {
  for (std::int64_t i = 0; i < c.layers; ++i)
    transformer_blocks_.emplace_back(s.at("transformer_blocks").at(i), block_config(c, i));
}

at::Tensor Sd3Transformer2DModel::forward(const at::Tensor& latents,
                                          const Sd3Conditions& in) const {
  check_width(in.text, config_.text_width, kWhere, "token embeddings");
  check_width(in.pooled, config_.pooled_width, kWhere, "pooled text");
  const at::ScalarType type = latents.scalar_type();
  const at::Tensor time = time_text_embed_.forward(in.timesteps, in.pooled.to(type));

  TokenStreams tokens{pos_embed_(latents), context_embedder_(in.text.to(type))};
  if (in.control.defined()) tokens.picture = tokens.picture + in.control;
  for (const JointTransformerBlock& block : transformer_blocks_)
    tokens = block.forward(tokens, time);

  const at::Tensor patches = norm_out_(tokens.picture, time).into(proj_out_);
  const std::int64_t patch = config_.patch_size;
  return unpatch(patches, latents.size(2) / patch, latents.size(3) / patch, patch);
}

}  // namespace ringlet::models
