// fp16's range.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/clamp.h>

namespace ringlet::nn {

/// Sums of residuals that may leave the range of fp16 are cut to its ends; other types have room.
inline at::Tensor within_half_range(const at::Tensor& x) {
  constexpr double kLargest = 65504.0;
  return x.scalar_type() == at::kHalf ? at::clamp(x, -kLargest, kLargest) : x;
}

}  // namespace ringlet::nn
