// Rotary positions (Su et al. 2021, "RoFormer") on several axes, as FLUX has them.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace ringlet::models {

/// The rotations of tokens at `positions` [N, axes]: e^(i angle), complex64 [N, 1, sum(widths) /
/// 2]. Axis a turns widths[a] / 2 pairs of numbers, pair j by position / theta^(2 j / widths[a]).
at::Tensor rotations(const at::Tensor& positions, const std::vector<std::int64_t>& widths,
                     double theta = 10000.0);

/// Turns the pairs (0, 1), (2, 3), … of every head: x [B, N, heads, width] -> the same.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& rotations);

}  // namespace ringlet::models
