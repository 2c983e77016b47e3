// Several host tensors on a device by one copy; nn/device.h has the copy of one.
#pragma once

#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

namespace ringlet::nn {

/// Host tensors on `device`, in their order: one copy for all, from pinned memory, which nobody
/// waits for. On the CPU the tensors themselves.
std::vector<at::Tensor> to_device(std::span<const at::Tensor> tensors, at::Device device);

}  // namespace ringlet::nn
