#include "tests/device/simulated/memory.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include "tests/device/simulated/counters.h"

namespace ringlet::device {
namespace {

constexpr std::size_t kReserved = std::size_t{32} << 30;  // addresses, not memory
constexpr std::size_t kBlock = 512;                       // as CUDA's caching allocator rounds
constexpr int kNotANumber = 0xFF;                         // as bytes of any floating-point type

std::atomic<int> chosen = -1;
std::atomic<std::int64_t> most_bytes = std::int64_t{24} << 30;
thread_local c10::DeviceIndex current = 0;

struct Allocation {
  int device;
  std::size_t offset, bytes;
};

/// One device's memory: a file in memory that is mapped twice, once without any right to touch it.
class Arena {
 public:
  explicit Arena(int device) : device_(device) {
    const int file = memfd_create("simulated CUDA device", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, static_cast<off_t>(kReserved)) != 0) std::abort();
    shown_ = map(file, PROT_NONE);
    kernel_ = map(file, PROT_READ | PROT_WRITE);
    close(file);
    free_.emplace(0, kReserved);
  }

  Allocation* allocate(std::size_t wanted) {
    const std::lock_guard lock(mutex_);
    const std::size_t bytes = (wanted + kBlock - 1) / kBlock * kBlock;
    const std::int64_t most = most_bytes;
    TORCH_CHECK_WITH(OutOfMemoryError, use_.current + static_cast<std::int64_t>(bytes) <= most,
                     "CUDA out of memory. Tried to allocate ", bytes, " bytes. GPU ", device_,
                     " has a total capacity of ", most, " bytes of which ", most - use_.current,
                     " bytes are free.");
    const auto hole = std::ranges::find_if(free_, [&](const auto& f) { return f.second >= bytes; });
    TORCH_CHECK(hole != free_.end(), "simulated device: no addresses are left");
    const auto [offset, size] = *hole;
    free_.erase(hole);
    if (size > bytes) free_.emplace(offset + bytes, size - bytes);
    std::memset(kernel_ + offset, kNotANumber, bytes);  // what is read before it is written shows
    use_.current += static_cast<std::int64_t>(bytes);
    use_.peak = std::max(use_.peak, use_.current);
    report(offset, static_cast<std::int64_t>(bytes));
    return new Allocation{device_, offset, bytes};
  }

  void release(Allocation* allocation) {
    const std::lock_guard lock(mutex_);
    std::memset(kernel_ + allocation->offset, kNotANumber, allocation->bytes);
    use_.current -= static_cast<std::int64_t>(allocation->bytes);
    report(allocation->offset, -static_cast<std::int64_t>(allocation->bytes));
    auto place = free_.emplace(allocation->offset, allocation->bytes).first;
    delete allocation;
    const auto join_with_next = [&](auto at) {
      const auto next = std::next(at);
      if (next == free_.end() || at->first + at->second != next->first) return;
      at->second += next->second;
      free_.erase(next);
    };
    join_with_next(place);
    if (place != free_.begin()) join_with_next(std::prev(place));
  }

  bool shows(const void* address) const {
    const auto* at = static_cast<const char*>(address);
    return at >= shown_ && at < shown_ + kReserved;
  }
  char* shown(std::size_t offset) const { return shown_ + offset; }
  char* kernel(const void* address) const {
    return kernel_ + (static_cast<const char*>(address) - shown_);
  }

  MemoryUse use() const {
    const std::lock_guard lock(mutex_);
    return use_;
  }
  void reset_peak() {
    const std::lock_guard lock(mutex_);
    use_.peak = use_.current;
  }

 private:
  static char* map(int file, int rights) {
    void* address = mmap(nullptr, kReserved, rights, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (address == MAP_FAILED) std::abort();
    return static_cast<char*>(address);
  }
  /// To whoever counts bytes, as CUDA's allocator does.
  void report(std::size_t offset, std::int64_t change) const {
    c10::reportMemoryUsageToProfiler(shown(offset), change, static_cast<std::size_t>(use_.current),
                                     kReserved,
                                     c10::Device(kType, static_cast<c10::DeviceIndex>(device_)));
  }

  int device_;
  char *shown_, *kernel_;
  mutable std::mutex mutex_;
  std::map<std::size_t, std::size_t> free_;  ///< bytes by offset
  MemoryUse use_;
};

/// Never destroyed: tensors in statics are released after everything else.
Arena& arena(int device) {
  static const std::array<Arena*, kDevices> all = {new Arena(0), new Arena(1)};
  return *all.at(static_cast<std::size_t>(device));
}

class SimulatedAllocator final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    const c10::Device device(kType, current);
    if (bytes == 0) return {nullptr, device};
    TORCH_CHECK(chosen < 0 || chosen == current,
                "simulated device: memory on cuda:", static_cast<int>(current),
                ", and cuda:", chosen.load(), " is the chosen device");
    Allocation* allocation = arena(current).allocate(bytes);
    count_allocation();
    return {arena(current).shown(allocation->offset), allocation, &release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(kernel_address(to), kernel_address(from), bytes);
  }

  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    const MemoryUse use = arena(device).use();
    c10::CachingDeviceAllocator::DeviceStats stats;
    for (auto* bytes : {&stats.allocated_bytes, &stats.reserved_bytes}) {
      (*bytes)[0].current = use.current;
      (*bytes)[0].peak = use.peak;
    }
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex device) override { arena(device).reset_peak(); }
  std::pair<std::size_t, std::size_t> getMemoryInfo(c10::DeviceIndex device) override {
    const std::int64_t most = most_bytes;
    return {static_cast<std::size_t>(most - arena(device).use().current),
            static_cast<std::size_t>(most)};
  }

 private:
  static void release(void* context) {
    auto* allocation = static_cast<Allocation*>(context);
    arena(allocation->device).release(allocation);
  }
};

/// Ordinary host memory that is known to be pinned.
class PinnedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    constexpr std::size_t kAlignment = 64;
    void* data = std::aligned_alloc(kAlignment, (bytes / kAlignment + 1) * kAlignment);
    TORCH_CHECK(data != nullptr, "simulated device: no pinned memory is left");
    const std::lock_guard lock(mutex());
    blocks()[static_cast<const char*>(data)] = bytes;
    return {data, data, &release, c10::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }

  static bool holds(const void* address) {
    const auto* at = static_cast<const char*>(address);
    const std::lock_guard lock(mutex());
    const auto after = blocks().upper_bound(at);
    if (after == blocks().begin()) return false;
    const auto& [begin, bytes] = *std::prev(after);
    return at < begin + std::max<std::size_t>(bytes, 1);
  }

 private:
  static void release(void* data) {
    const std::lock_guard lock(mutex());
    blocks().erase(static_cast<const char*>(data));
    std::free(data);
  }
  static std::mutex& mutex() {
    static auto* one = new std::mutex;
    return *one;
  }
  static std::map<const char*, std::size_t>& blocks() {
    static auto* all = new std::map<const char*, std::size_t>;
    return *all;
  }
};

}  // namespace

c10::DeviceIndex current_device() { return current; }
void set_current_device(c10::DeviceIndex index) { current = index; }

int device_of(const void* address) {
  for (int device = 0; device < kDevices; ++device)
    if (arena(device).shows(address)) return device;
  return -1;
}

void* kernel_address(const void* address) {
  if (address == nullptr) return nullptr;
  const int device = device_of(address);
  TORCH_CHECK(device >= 0, "simulated device: an address that is not the device's");
  return arena(device).kernel(address);
}

c10::DeviceAllocator& allocator() {
  static auto* one = new SimulatedAllocator;
  return *one;
}

c10::Allocator& pinned_allocator() {
  static auto* one = new PinnedAllocator;
  return *one;
}

bool is_pinned(const void* address) { return PinnedAllocator::holds(address); }

MemoryUse memory_use(int device) { return arena(device).use(); }

void reset_peaks() {
  for (int device = 0; device < kDevices; ++device) arena(device).reset_peak();
}

void choose_device(int index) { chosen = index; }
void limit_memory_of_devices(std::int64_t bytes) { most_bytes = bytes; }

}  // namespace ringlet::device
