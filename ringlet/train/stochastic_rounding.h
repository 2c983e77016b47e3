// bf16 parameters that learn: updates smaller than a rounding step count on average.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "ringlet/train/trainable.h"

namespace ringlet::train {

/// Writes fp32 numbers into a bf16 tensor of the same sizes, each rounded up or down with the
/// probabilities that make the mean exact (Gupta et al. 2015, "Deep Learning with Limited Numerical
/// Precision"). Sixteen random bits are added to the ones that are cut off; they are those of
/// nn::keep_mask's sequence, a function of the key and the number's place, on any device.
void round_stochastically(const at::Tensor& bf16, const at::Tensor& numbers, std::uint64_t key);

/// Brings the parameters to bf16 in place, where layers that hold them see it. Throws
/// Error(invalid_argument) where something else is computed in than bf16.
void keep_in_bf16(const std::vector<Trainable>& parameters, at::ScalarType computed_in);

}  // namespace ringlet::train
