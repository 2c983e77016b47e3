// Inputs of layers that are cheap to compute and large to keep: computed again in the backward
// pass, while the layers that take them are not.
#pragma once

#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/gradient_checkpoint.h"

namespace ringlet::nn {

/// use(make(inputs)), all results defined. Whatever the layers in `use` keep of what `make` returns
/// gives its memory back once they have computed. The backward pass calls make(inputs) again,
/// without recording, just before theirs (as CheckpointWithoutOutput of Megatron-LM does;
/// Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models").
///
/// `make` has to return the same numbers and layout both times, and change nothing. Its results are
/// gone for everybody else, and so may not leave `use`; views of its inputs stay. Inputs may be
/// undefined. The gradients of `make` itself are autograd's: it keeps what its operators need.
/// Nothing is computed again where nobody keeps the results.
std::vector<at::Tensor> use_recomputed(const TensorListFunction& make,
                                       const std::vector<at::Tensor>& inputs,
                                       const TensorListFunction& use);

/// The same of one result that is used for one.
at::Tensor use_recomputed(const TensorFunction& make, const std::vector<at::Tensor>& inputs,
                          const std::function<at::Tensor(const at::Tensor&)>& use);

}  // namespace ringlet::nn
