// Adaptive layer norms of diffusion transformers (Peebles and Xie 2023, "Scalable Diffusion Models
// with Transformers", §3.2): scales, shifts and gates that a layer makes of the time embedding.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

/// What a sublayer's input is scaled and shifted by, and its output gated with; each [B, 1, width].
struct Modulation {
  at::Tensor shift;
  at::Tensor scale;
  at::Tensor gate;
};

/// Layer norm without parameters over the last axis.
at::Tensor plain_layer_norm(const at::Tensor& x);

/// normed * (1 + scale) + shift.
at::Tensor modulate(const at::Tensor& normed, const Modulation& modulation);

/// x + gate * y. In fp16 the sum is kept finite, as diffusers does it.
at::Tensor add_gated(const at::Tensor& x, const Modulation& modulation, const at::Tensor& y);

/// AdaLayerNormZero and its kin: one modulation per sublayer of a block, in the order in which the
/// linear layer has them.
class AdaLayerNormZero {
 public:
  AdaLayerNormZero(const nn::WeightSource& source, std::int64_t width, std::int64_t sublayers);

  /// time [B, width].
  std::vector<Modulation> operator()(const at::Tensor& time) const;

 private:
  std::int64_t sublayers_;
  nn::Linear linear_;
};

/// AdaLayerNormContinuous: a layer norm that is scaled and shifted, without a gate.
class AdaLayerNormContinuous {
 public:
  AdaLayerNormContinuous(const nn::WeightSource& source, std::int64_t width);

  /// x [B, N, width], time [B, width] -> [B, N, width].
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& time) const;

 private:
  nn::Linear linear_;
};

}  // namespace ringlet::models
