// Adaptive layer norms of diffusion transformers (Peebles and Xie 2023, "Scalable Diffusion Models
// with Transformers", §3.2): scales, shifts and gates that a layer makes of the time embedding.
#pragma once

#include <cstdint>
#include <functional>
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

/// Tokens as the layers of a sublayer take them: layer_norm(x) (1 + scale) + shift.
struct NormedTokens {
  at::Tensor x;  ///< [B, N, width]
  Modulation modulation;

  /// layers(the normed tokens). What layers keep of these for their backward pass is computed again
  /// there (nn/recomputed_inputs.h).
  std::vector<at::Tensor> into(
      const std::function<std::vector<at::Tensor>(const at::Tensor&)>& layers) const;
  at::Tensor into(const std::function<at::Tensor(const at::Tensor&)>& layers) const;
};

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

  /// x [B, N, width], time [B, width].
  NormedTokens operator()(const at::Tensor& x, const at::Tensor& time) const;

 private:
  nn::Linear linear_;
};

}  // namespace ringlet::models
