// FeedForward of diffusers' transformers, with GELU by tanh.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

/// GELU (Hendrycks and Gimpel 2016) by their approximation with tanh.
at::Tensor gelu_tanh(const at::Tensor& x);

/// net.0.proj, GELU, net.2; the hidden layer is four times as wide. GELU's result is not kept for
/// the backward pass, which computes it again where net.2 needs it.
class FeedForward {
 public:
  FeedForward(const nn::WeightSource& source, std::int64_t width);

  /// x [..., width] -> the same.
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  nn::Linear in_, out_;
};

}  // namespace ringlet::models
