// A frozen weight that an autograd function keeps for its backward pass.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include "ringlet/nn/stored_weight.h"

namespace ringlet::nn {

/// Keeps the weight as it is stored: neither its values nor its type change until then.
void save_weight(torch::autograd::AutogradContext& context, const StoredWeight& weight);
const StoredWeight& saved_weight(torch::autograd::AutogradContext& context);

}  // namespace ringlet::nn
