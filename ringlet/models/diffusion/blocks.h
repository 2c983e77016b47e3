// Convolutional building blocks that the U-Net and the autoencoder share.
#pragma once

#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/block.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/norm.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct ResnetConfig {
  std::int64_t in_channels;
  std::int64_t out_channels;
  std::int64_t time_channels = 0;  ///< width of the time embedding; 0 = none (autoencoder)
  std::int64_t groups = 32;
  double epsilon = 1e-6;
};

/// ResnetBlock2D: norm1, SiLU, conv1, + time_emb_proj(SiLU(t)), norm2, SiLU, conv2, + shortcut.
class ResnetBlock2D {
 public:
  ResnetBlock2D(const nn::WeightSource& source, const ResnetConfig& config);

  /// x [B, in, h, w], time_embedding [B, time_channels] or undefined -> [B, out, h, w].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& time_embedding = {}) const;

 private:
  at::Tensor compute(const at::Tensor& x, const at::Tensor& time_embedding) const;

  nn::Block block_;
  nn::GroupNorm norm1_;
  nn::Conv2d conv1_;
  std::optional<nn::Linear> time_emb_proj_;
  nn::GroupNorm norm2_;
  nn::Conv2d conv2_;
  std::optional<nn::Conv2d> conv_shortcut_;
};

/// Halves height and width with a strided convolution. padding 0 stands for the autoencoder's
/// asymmetric padding (one row and column at the bottom and right).
class Downsample2D {
 public:
  Downsample2D(const nn::WeightSource& source, std::int64_t channels, std::int64_t padding);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  bool pad_bottom_right_;
  nn::Conv2d conv_;
};

/// Nearest-neighbour enlargement (twice, or to height x width), then a convolution.
class Upsample2D {
 public:
  Upsample2D(const nn::WeightSource& source, std::int64_t channels);
  at::Tensor forward(const at::Tensor& x) const;
  at::Tensor forward(const at::Tensor& x, std::int64_t height, std::int64_t width) const;

 private:
  nn::Conv2d conv_;
};

}  // namespace ringlet::models
