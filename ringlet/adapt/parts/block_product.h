// Products with block-diagonal matrices that are never laid out.
#pragma once

#include <ATen/core/Tensor.h>

namespace ringlet::adapt {

/// diag(B_1, …, B_n) x for vectors along the last axis: x [..., n b], blocks [n, b, b].
at::Tensor block_multiply(const at::Tensor& blocks, const at::Tensor& x);

}  // namespace ringlet::adapt
