// The gated activation of transformers' feed-forward layers.
#pragma once

#include <ATen/core/Tensor.h>

namespace ringlet::nn {

/// GEGLU (Shazeer 2020): [..., 2 n] -> [..., n], the first half times GELU of the second. For the
/// backward pass only its input is kept: GELU is computed again there.
at::Tensor geglu(const at::Tensor& value_and_gate);

}  // namespace ringlet::nn
