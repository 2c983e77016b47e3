// Root mean square normalisation.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/weight_source.h"

namespace ringlet::nn {

/// x / sqrt(mean(x^2) + epsilon) * weight over the last axis of x [..., C], weight [C] (Zhang and
/// Sennrich 2019), computed in fp32 and returned in the type of x. For the backward pass only x is
/// kept.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon);

/// The same with the scale of a checkpoint.
class RmsNorm {
 public:
  RmsNorm(const WeightSource& source, std::int64_t channels, double epsilon);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  double epsilon_;
};

}  // namespace ringlet::nn
