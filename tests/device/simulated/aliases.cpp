#include "tests/device/simulated/aliases.h"

#include <cstring>
#include <utility>

#include <c10/core/CPUAllocator.h>
#include <c10/core/DeviceGuard.h>

namespace ringlet::device {
namespace {

/// A tensor over a storage, otherwise like another one.
at::Tensor like(const at::Tensor& other, c10::Storage storage, c10::DispatchKey key) {
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(key), other.dtype());
  c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  impl->set_storage_offset(other.storage_offset());
  impl->set_sizes_and_strides(other.sizes(), other.strides());
  if (other.is_conj()) tensor._set_conj(true);
  if (other.is_neg()) tensor._set_neg(true);
  if (other.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
  return tensor;
}

/// Device memory with a host storage's bytes.
c10::DataPtr copied(const c10::Storage& host, c10::Device device) {
  const c10::DeviceGuard guard(device);
  c10::DataPtr data = allocator().allocate(host.nbytes());
  if (host.nbytes() > 0) std::memcpy(kernel_address(data.get()), host.data(), host.nbytes());
  return data;
}

}  // namespace

c10::Storage Aliases::host_storage(const c10::Storage& device) {
  c10::Storage& host = host_of_[device.unsafeGetStorageImpl()];
  if (host) return host;
  // The alias keeps the device's storage: nothing else may get its address meanwhile.
  const auto release = [](void* kept) { delete static_cast<c10::Storage*>(kept); };
  c10::DataPtr data(kernel_address(device.data()), new c10::Storage(device), release, c10::kCPU);
  host = c10::Storage(c10::Storage::use_byte_size_t(), device.nbytes(), std::move(data),
                      c10::GetCPUAllocator(), /*resizable=*/true);
  device_of_[host.unsafeGetStorageImpl()] = device;
  return host;
}

at::Tensor Aliases::on_host(const at::Tensor& tensor) {
  if (!device::on_device(tensor)) return tensor;
  return like(tensor, host_storage(tensor.storage()), c10::DispatchKey::CPU);
}

at::Tensor Aliases::on_device(const at::Tensor& made, c10::Device device) {
  if (!made.defined() || !made.is_cpu()) return made;
  const c10::Storage host = made.storage();
  c10::Storage& storage = device_of_[host.unsafeGetStorageImpl()];
  if (!storage) {
    storage = c10::Storage(c10::Storage::use_byte_size_t(), host.nbytes(), copied(host, device),
                           &allocator(), /*resizable=*/true);
    host_of_[storage.unsafeGetStorageImpl()] = host;
  }
  return like(made, storage, c10::DispatchKey::CUDA);
}

void Aliases::write_back(const at::Tensor& original, const at::Tensor& alias) const {
  c10::StorageImpl* storage = original.storage().unsafeGetStorageImpl();
  const c10::Storage& host = alias.storage();
  if (host.data() != kernel_address(storage->data())) {
    storage->set_data_ptr_noswap(copied(host, original.device()));
    storage->set_nbytes(host.nbytes());
  }
  c10::TensorImpl* impl = original.unsafeGetTensorImpl();
  if (impl->sizes() == alias.sizes() && impl->strides() == alias.strides() &&
      impl->storage_offset() == alias.storage_offset())
    return;
  impl->set_storage_offset(alias.storage_offset());
  impl->set_sizes_and_strides(alias.sizes(), alias.strides());
}

}  // namespace ringlet::device
