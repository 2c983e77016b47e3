// Products with block-diagonal matrices that are never laid out.
#pragma once

#include <ATen/core/Tensor.h>

namespace ringlet::adapt {

/// The same block-diagonal matrix with fewer blocks, several small ones as one: products of width 2
/// or 4 would spend their time on starting. […, n, b, b] -> […, n / t, t b, t b], contiguous.
at::Tensor packed_blocks(const at::Tensor& blocks);

/// diag(B_1, …, B_n) x for vectors along the last axis: x [..., n b], blocks [n, b, b], contiguous
/// and of the type of x.
at::Tensor block_multiply(const at::Tensor& blocks, const at::Tensor& x);

}  // namespace ringlet::adapt
