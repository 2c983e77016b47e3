// The simulated devices' memory: host code that touches it faults, kernels see it at other
// addresses.
#pragma once

#include <cstddef>
#include <cstdint>

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Device.h>

namespace ringlet::device {

constexpr c10::DeviceType kType = c10::DeviceType::CUDA;
constexpr int kDevices = 2;

c10::DeviceIndex current_device();
void set_current_device(c10::DeviceIndex index);  ///< of this thread

/// The device whose memory holds the address as host code sees it, or -1.
int device_of(const void* address);

/// Where a kernel finds what host code sees at `address`.
void* kernel_address(const void* address);

/// Memory on the thread's current device, filled with NaN.
c10::DeviceAllocator& allocator();

/// Host memory that a device could read by itself.
c10::Allocator& pinned_allocator();
bool is_pinned(const void* address);

struct MemoryUse {
  std::int64_t current = 0, peak = 0;
};
MemoryUse memory_use(int device);
void reset_peaks();

void choose_device(int index);
void limit_memory_of_devices(std::int64_t bytes);

}  // namespace ringlet::device
