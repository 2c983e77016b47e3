#include "ringlet/train/trainable.h"

#include <map>

namespace ringlet::train {

std::vector<Trainable> trainables(const adapt::AdapterSet& adapters) {
  std::map<std::string, at::Tensor> starts;
  for (const auto& [name, tensor] : adapters.starts()) starts.emplace(name, tensor);
  std::vector<Trainable> found;
  for (const auto& [name, tensor] : adapters.parameters()) {
    const auto start = starts.find(name);
    // Copied: one that is trained itself would be no fixed point.
    found.push_back({name, tensor,
                     start == starts.end() ? at::Tensor()
                                           : start->second.detach().to(tensor.options(), false,
                                                                       /*copy=*/true)});
  }
  return found;
}

std::vector<Trainable> trainables(const nn::ModuleIndex& network, const std::string& prefix) {
  std::vector<Trainable> found;
  for (const auto& [name, tensor] : network.tensors)
    if (tensor.requires_grad()) found.push_back({prefix + name, tensor});
  return found;
}

at::Device device_of(const std::vector<Trainable>& trainables) {
  return trainables.empty() ? at::Device(at::kCPU) : trainables.front().value.device();
}

}  // namespace ringlet::train
