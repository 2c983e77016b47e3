#include "ringlet/nn/tensor_slots.h"

#include <ATen/core/grad_mode.h>

namespace ringlet::nn {

void TensorSlots::show(const at::Tensor& tensor, const Slot& slot) {
  const at::NoGradGuard no_grad;
  at::Tensor sum = slot.base.to(at::kFloat);
  for (const auto& [owner, difference] : slot.differences) sum = sum + difference.to(sum.device());
  // The network holds the same handle, so that it sees other numbers in it from now on.
  tensor.set_data(sum.to(slot.base.scalar_type()));
}

void TensorSlots::set(const at::Tensor& tensor, const void* owner, const at::Tensor& difference) {
  Slot& slot = slots_[tensor.unsafeGetTensorImpl()];
  if (!slot.base.defined()) slot.base = tensor.detach();
  slot.differences[owner] = difference;
  show(tensor, slot);
}

void TensorSlots::remove(const at::Tensor& tensor, const void* owner) noexcept {
  const auto found = slots_.find(tensor.unsafeGetTensorImpl());
  if (found == slots_.end()) return;
  found->second.differences.erase(owner);
  if (!found->second.differences.empty()) {
    show(tensor, found->second);
    return;
  }
  tensor.set_data(found->second.base);
  slots_.erase(found);
}

at::Tensor TensorSlots::base(const at::Tensor& tensor) const {
  const auto found = slots_.find(tensor.unsafeGetTensorImpl());
  return found == slots_.end() ? tensor : found->second.base;
}

}  // namespace ringlet::nn
