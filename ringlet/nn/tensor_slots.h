// Changes of a network's small tensors (norms): the counterpart of a layer's adapter slot.
#pragma once

#include <map>

#include <ATen/core/Tensor.h>

namespace ringlet::nn {

/// The tensors of one network that are changed now, and by whom: base + sum of the differences.
/// The base's numbers are kept and never written, so that they come back bit for bit when the last
/// change goes, in whatever order. Must not be used beside a forward pass of the same network.
class TensorSlots {
 public:
  /// Sets or replaces an owner's difference, of the tensor's shape in fp32.
  void set(const at::Tensor& tensor, const void* owner, const at::Tensor& difference);
  void remove(const at::Tensor& tensor, const void* owner) noexcept;

  /// The tensor's own numbers.
  at::Tensor base(const at::Tensor& tensor) const;

 private:
  struct Slot {
    at::Tensor base;
    std::map<const void*, at::Tensor> differences;
  };
  static void show(const at::Tensor& tensor, const Slot& slot);

  std::map<const void*, Slot> slots_;  // by the tensor's identity
};

}  // namespace ringlet::nn
