// y + s up down x beside a linear layer, forward and backward, without a product of a library for
// each narrow matrix.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace ringlet::adapt {

/// Whether low_rank_add() takes these: matrices of fp32 on the CPU, a rank that is small, and rows
/// y [..., out] and x [..., in] that lie together.
bool has_low_rank_kernel(const at::Tensor& y, const at::Tensor& x, const at::Tensor& down,
                         const at::Tensor& up);

/// y + s x down^T up^T with down [rank, in] and up [out, rank], and its derivatives; y is used up.
/// Sums are in an order that depends on the sizes alone.
at::Tensor low_rank_add(const at::Tensor& y, double s, const at::Tensor& x, const at::Tensor& down,
                        const at::Tensor& up);

}  // namespace ringlet::adapt
