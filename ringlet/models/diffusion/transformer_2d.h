// Transformer2DModel: the spatial transformer of latent diffusion (Rombach et al. 2022, §3.3).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/attention.h"
#include "ringlet/nn/block.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/norm.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct Transformer2DConfig {
  std::int64_t channels;
  std::int64_t heads;
  std::int64_t layers;
  std::int64_t context_width;  ///< width of the text embeddings
  std::int64_t groups = 32;
  bool linear_projection = false;     ///< proj_in/out are linear layers (SD 2, SDXL), not 1x1 convs
  bool only_cross_attention = false;  ///< attn1 attends to the text as well
  bool upcast_attention = false;
};

/// Self-attention, cross-attention and a GEGLU feed-forward, each pre-normed with a residual.
class BasicTransformerBlock {
 public:
  BasicTransformerBlock(const nn::WeightSource& source, const Transformer2DConfig& config);

  /// x [B, N, channels], context [B, T, context_width] -> [B, N, channels].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& context) const;

 private:
  at::Tensor compute(const at::Tensor& x, const at::Tensor& context) const;
  at::Tensor feed_forward(const at::Tensor& x) const;

  nn::Block block_;
  bool only_cross_attention_;
  nn::LayerNorm norm1_;
  nn::Attention attn1_;
  nn::LayerNorm norm2_;
  nn::Attention attn2_;
  nn::LayerNorm norm3_;
  nn::Linear ff_in_, ff_out_;
};

class Transformer2DModel {
 public:
  Transformer2DModel(const nn::WeightSource& source, const Transformer2DConfig& config);

  /// x [B, channels, h, w], context [B, T, context_width] -> [B, channels, h, w].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& context) const;

 private:
  nn::GroupNorm norm_;
  std::optional<nn::Linear> linear_in_, linear_out_;
  std::optional<nn::Conv2d> conv_in_, conv_out_;
  std::vector<BasicTransformerBlock> transformer_blocks_;
};

}  // namespace ringlet::models
