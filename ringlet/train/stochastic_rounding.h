// bf16 parameters that learn: updates smaller than a rounding step count on average.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace ringlet::train {

/// Writes fp32 numbers into a bf16 tensor of the same sizes, each rounded up or down with the
/// probabilities that make the mean exact (Gupta et al. 2015, "Deep Learning with Limited Numerical
/// Precision"). Sixteen random bits are added to the ones that are cut off; they are those of
/// nn::keep_mask's sequence, a function of the key and the number's place, on any device.
void round_stochastically(const at::Tensor& bf16, const at::Tensor& numbers, std::uint64_t key);

}  // namespace ringlet::train
