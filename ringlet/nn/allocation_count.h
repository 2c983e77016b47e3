// How much memory tensors take, counted allocation by allocation: exact, and repeatable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include <c10/core/Device.h>

namespace ringlet::nn {

/// Counts what LibTorch's allocator of a device gives out while this lives, less what comes back of
/// it. On the CPU the allocator is replaced meanwhile, for all threads: one count at a time. Frees
/// of earlier memory are not seen there; on CUDA they count below zero.
class AllocationCount {
 public:
  explicit AllocationCount(c10::Device device);
  ~AllocationCount();
  AllocationCount(const AllocationCount&) = delete;
  AllocationCount& operator=(const AllocationCount&) = delete;

  std::int64_t bytes() const;
  /// The blocks that are in use, by address, with their sizes; of the CPU alone.
  std::map<const void*, std::size_t> blocks() const;

 private:
  c10::Device device_;
  std::int64_t start_ = 0;  ///< on CUDA
};

/// Lets peak_memory(device) begin again at what is in use now. On the CPU it stays as it is where
/// the system does not allow that.
void reset_peak_memory(c10::Device device);

}  // namespace ringlet::nn
