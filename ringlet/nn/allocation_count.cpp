#include "ringlet/nn/allocation_count.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>

#include "ringlet/core/memory_use.h"

namespace ringlet::nn {
namespace {

constexpr std::uint8_t kPriority = 1;

/// LibTorch's allocator of the CPU, which keeps a list of what it has given out.
class ListingAllocator final : public c10::Allocator {
 public:
  /// Never destroyed: tensors that it has given out come back at any time.
  static ListingAllocator& instance() {
    static auto* const allocator = new ListingAllocator;
    return *allocator;
  }

  void begin() {
    const std::scoped_lock lock(mutex_);
    for (auto& [place, block] : blocks_) block.counted = false;
    bytes_ = 0;
    c10::SetCPUAllocator(this, kPriority);
  }
  void end() { c10::SetCPUAllocator(base_, kPriority); }

  std::int64_t bytes() const {
    const std::scoped_lock lock(mutex_);
    return bytes_;
  }

  std::map<const void*, std::size_t> sizes() const {
    const std::scoped_lock lock(mutex_);
    std::map<const void*, std::size_t> sizes;
    for (const auto& [place, block] : blocks_)
      if (block.counted) sizes[place] = block.size;
    return sizes;
  }

  c10::DataPtr allocate(std::size_t size) override {
    c10::DataPtr owner = base_->allocate(size);
    void* const place = owner.get();
    if (place == nullptr) return owner;
    const c10::DeleterFnPtr deleter = owner.get_deleter();
    owner.release_context();
    const std::scoped_lock lock(mutex_);
    blocks_[place] = {deleter, size, true};
    bytes_ += static_cast<std::int64_t>(size);
    return {place, place, free, c10::Device(c10::kCPU)};  // LibTorch needs the context to be so
  }

  c10::DeleterFnPtr raw_deleter() const override { return free; }
  void copy_data(void* to, const void* from, std::size_t size) const override {
    default_copy_data(to, from, size);
  }

 private:
  struct Block {
    c10::DeleterFnPtr deleter = nullptr;
    std::size_t size = 0;
    bool counted = false;  ///< given out since begin()
  };

  static void free(void* place) {
    ListingAllocator& self = instance();
    c10::DeleterFnPtr deleter = self.base_->raw_deleter();  // of what came before begin()
    {
      const std::scoped_lock lock(self.mutex_);
      if (const auto found = self.blocks_.find(place); found != self.blocks_.end()) {
        if (found->second.counted) self.bytes_ -= static_cast<std::int64_t>(found->second.size);
        deleter = found->second.deleter;
        self.blocks_.erase(found);
      }
    }
    deleter(place);
  }

  c10::Allocator* const base_ = c10::GetCPUAllocator();
  mutable std::mutex mutex_;
  std::map<const void*, Block> blocks_;
  std::int64_t bytes_ = 0;
};

c10::DeviceIndex index_of(c10::Device device) {
  return static_cast<c10::DeviceIndex>(std::max<int>(device.index(), 0));
}

std::int64_t allocated_on(c10::Device device) {
  const auto aggregate = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return c10::getDeviceAllocator(device.type())
      ->getDeviceStats(index_of(device))
      .allocated_bytes[aggregate]
      .current;
}

}  // namespace

AllocationCount::AllocationCount(c10::Device device) : device_(device) {
  if (device_.is_cpu())
    ListingAllocator::instance().begin();
  else
    start_ = allocated_on(device_);
}

AllocationCount::~AllocationCount() {
  if (device_.is_cpu()) ListingAllocator::instance().end();
}

std::int64_t AllocationCount::bytes() const {
  return device_.is_cpu() ? ListingAllocator::instance().bytes() : allocated_on(device_) - start_;
}

std::map<const void*, std::size_t> AllocationCount::blocks() const {
  return ListingAllocator::instance().sizes();
}

void reset_peak_memory(c10::Device device) {
  if (device.is_cpu())
    reset_peak_resident_bytes();
  else
    c10::getDeviceAllocator(device.type())->resetPeakStats(index_of(device));
}

}  // namespace ringlet::nn
