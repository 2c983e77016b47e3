// What training changes, and where it starts from.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::train {

/// A tensor that training changes.
struct Trainable {
  std::string name;
  at::Tensor value;  ///< a leaf that records gradients
  /// What weight decay pulls towards: where the value is in the frozen network. Undefined = zero.
  at::Tensor start = {};
  double rate_factor = 1.0;  ///< on the learning rate, and so on the decay
};

/// The parameters of adapters by their full names. Weight decay pulls transforms to the identity,
/// and residuals to zero: towards the base model.
std::vector<Trainable> trainables(const adapt::AdapterSet& adapters);

/// The tensors of a network that record gradients, by `prefix` and their names.
std::vector<Trainable> trainables(const nn::ModuleIndex& network, const std::string& prefix = {});

/// Where they are, all on one device; the CPU where there are none.
at::Device device_of(const std::vector<Trainable>& trainables);

}  // namespace ringlet::train
