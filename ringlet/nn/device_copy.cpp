#include "ringlet/nn/device_copy.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <ATen/ops/empty.h>

namespace ringlet::nn {

std::vector<at::Tensor> to_device(std::span<const at::Tensor> tensors, at::Device device) {
  std::vector<at::Tensor> there(tensors.begin(), tensors.end());
  if (device.is_cpu()) return there;
  constexpr std::int64_t kAligned = 16;  // every type can be viewed at such a place
  std::vector<std::int64_t> places;
  std::int64_t bytes = 0;
  for (const at::Tensor& tensor : tensors) {
    places.push_back(bytes);
    bytes += (static_cast<std::int64_t>(tensor.nbytes()) + kAligned - 1) / kAligned * kAligned;
  }
  const at::Tensor packed =
      at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(device.is_cuda()));
  for (std::size_t i = 0; i < there.size(); ++i) {
    const at::Tensor contiguous = there[i].contiguous();
    std::memcpy(packed.data_ptr<std::uint8_t>() + places[i], contiguous.const_data_ptr(),
                contiguous.nbytes());
  }
  const at::Tensor copied = packed.to(device, /*non_blocking=*/true);
  for (std::size_t i = 0; i < there.size(); ++i)
    there[i] = copied.narrow(0, places[i], static_cast<std::int64_t>(there[i].nbytes()))
                   .view(there[i].scalar_type())
                   .view(there[i].sizes());
  return there;
}

}  // namespace ringlet::nn
