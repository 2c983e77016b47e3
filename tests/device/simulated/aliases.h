// Device tensors as the host's, over the same memory, while one operator runs.
#pragma once

#include <unordered_map>

#include <ATen/core/Tensor.h>

#include "tests/device/simulated/memory.h"

namespace ringlet::device {

inline bool on_device(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kType;
}

/// Two tensors over one storage stay so: each storage has one alias.
class Aliases {
 public:
  /// A CPU tensor over a device tensor's memory; any other tensor as it is.
  at::Tensor on_host(const at::Tensor& tensor);

  /// What a CPU kernel made from on_host() tensors, as a tensor of the device: a view of theirs, or
  /// a copy in new device memory.
  at::Tensor on_device(const at::Tensor& made, c10::Device device);

  /// Makes `original` what the kernel made of its alias, which it may have resized.
  void write_back(const at::Tensor& original, const at::Tensor& alias) const;

 private:
  c10::Storage host_storage(const c10::Storage& device);

  std::unordered_map<const c10::StorageImpl*, c10::Storage> host_of_, device_of_;
};

}  // namespace ringlet::device
