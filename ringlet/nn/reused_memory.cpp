#include "ringlet/nn/reused_memory.h"

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <mutex>
#include <vector>

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/Exception.h>
#include <c10/util/flat_hash_map.h>

#include "ringlet/core/memory_use.h"

namespace ringlet::nn {
namespace {

constexpr std::size_t kLeast = 64;       // a line of the cache, to which blocks are aligned
constexpr std::size_t kLarge = 1 << 20;  // above it blocks are matched by size, not by class
constexpr std::size_t kPage = 1 << 12;
constexpr std::size_t kSteps = 8;         // classes between a power of two and the next
constexpr std::size_t kClasses = 8 * 21;  // up to kLarge

/// The width of a class: an eighth of the power of two below.
std::size_t class_step(std::size_t bytes) {
  return std::max(kLeast, std::bit_floor(bytes - 1) / kSteps);
}

std::size_t block_bytes(std::size_t bytes) {
  const std::size_t least = std::max(bytes, kLeast);
  const std::size_t step = bytes > kLarge ? kPage : class_step(least);
  return (least + step - 1) / step * step;
}

/// The class of a block of such a rounded size.
std::size_t class_of(std::size_t bytes) {
  const std::size_t below = std::bit_floor(bytes - 1), step = class_step(bytes);
  return static_cast<std::size_t>(std::countr_zero(below)) * kSteps + (bytes - 1 - below) / step;
}

struct Block {
  void* memory;
  std::size_t bytes;
};

class Blocks {
 public:
  void* take(std::size_t wanted) {
    const std::size_t bytes = block_bytes(wanted);
    {
      const std::lock_guard lock(mutex_);
      if (users_ > 0) {
        if (void* const kept = take_kept(bytes)) return kept;
        make_room(bytes);
      }
    }
    void* const memory = fresh(bytes);
    const std::lock_guard lock(mutex_);
    if (users_ > 0) {
      ++use_.fresh;
      hand_out({memory, bytes});
    }
    return memory;
  }

  /// Blocks that are not of these are LibTorch's own: its oneDNN tensors are freed by the allocator
  /// of the time, whichever they came from.
  void give(void* memory) {
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = in_use_.find(memory); found != in_use_.end()) {
        const Block block{memory, found->second};
        in_use_.erase(found);
        use_.in_use -= block.bytes;
        if (users_ > 0) {
          use_.kept += block.bytes;
          (block.bytes > kLarge ? large_ : small_[class_of(block.bytes)]).push_back(block);
          return;
        }
      }
    }
    c10::free_cpu(memory);
  }

  void enter() {
    const std::lock_guard lock(mutex_);
    if (users_++ > 0) return;
    use_ = {};
    for (const auto& [memory, bytes] : in_use_) use_.in_use += bytes;
    use_.most_in_use = use_.in_use;
  }

  void leave() {
    {
      const std::lock_guard lock(mutex_);
      if (--users_ > 0) return;
    }
    release();
    return_free_memory();
  }

  ReusedMemory::Use use() {
    const std::lock_guard lock(mutex_);
    return use_;
  }

 private:
  /// New memory, from that which is kept where the system has none left.
  void* fresh(std::size_t bytes) {
    try {
      return c10::alloc_cpu(bytes);
    } catch (const c10::Error&) {
      release();
      return c10::alloc_cpu(bytes);
    }
  }

  void hand_out(Block block) {
    in_use_[block.memory] = block.bytes;
    use_.in_use += block.bytes;
    use_.most_in_use = std::max(use_.most_in_use, use_.in_use);
  }

  void* take_kept(std::size_t bytes) {
    std::vector<Block>& blocks = bytes > kLarge ? large_ : small_[class_of(bytes)];
    auto chosen = blocks.empty() ? blocks.end() : std::prev(blocks.end());
    if (bytes > kLarge) chosen = large_block(bytes);
    if (chosen == blocks.end()) return nullptr;
    const Block block = *chosen;
    blocks.erase(chosen);
    use_.kept -= block.bytes;
    ++use_.reused;
    hand_out(block);
    return block.memory;
  }

  /// The smallest large block of at most an eighth more, the newest of them.
  std::vector<Block>::iterator large_block(std::size_t bytes) {
    auto best = large_.end();
    for (auto each = large_.begin(); each != large_.end(); ++each)
      if (each->bytes >= bytes && each->bytes <= bytes + bytes / kSteps &&
          (best == large_.end() || each->bytes <= best->bytes))
        best = each;
    return best;
  }

  /// Frees large blocks, those first that have waited longest, until a new one does not exceed what
  /// was in use before.
  void make_room(std::size_t bytes) {
    const std::size_t most = std::max(use_.most_in_use, use_.in_use + bytes);
    auto block = large_.begin();
    for (; block != large_.end() && use_.in_use + bytes + use_.kept > most; ++block) {
      use_.kept -= block->bytes;
      c10::free_cpu(block->memory);
    }
    large_.erase(large_.begin(), block);
  }

  void release() {
    const std::lock_guard lock(mutex_);
    const auto empty = [](std::vector<Block>& blocks) {
      for (const Block& block : blocks) c10::free_cpu(block.memory);
      blocks = {};
    };
    empty(large_);
    std::ranges::for_each(small_, empty);
    use_.kept = 0;
  }

  std::mutex mutex_;
  int users_ = 0;
  ReusedMemory::Use use_{};
  ska::flat_hash_map<void*, std::size_t> in_use_;  ///< bytes of blocks
  std::vector<Block> large_;                       ///< in the order in which they were freed
  std::array<std::vector<Block>, kClasses> small_;
};

Blocks& blocks() {
  static Blocks* const all = new Blocks;  // tensors of static variables outlive other statics
  return *all;
}

void give_back(void* memory) {
  if (memory == nullptr) return;
  c10::profiledCPUMemoryReporter().Delete(memory);
  blocks().give(memory);
}

/// LibTorch's allocator of the CPU, once there has been a ReusedMemory.
class ReusingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    void* const memory = bytes > 0 ? blocks().take(bytes) : nullptr;
    if (memory != nullptr) c10::profiledCPUMemoryReporter().New(memory, bytes);
    return {memory, memory, &give_back, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

}  // namespace

ReusedMemory::ReusedMemory() {
  static std::once_flag installed;
  std::call_once(installed, [] {
    static ReusingAllocator* const allocator = new ReusingAllocator;
    c10::SetCPUAllocator(allocator);
  });
  blocks().enter();
}

ReusedMemory::~ReusedMemory() { blocks().leave(); }

ReusedMemory::Use ReusedMemory::use() { return blocks().use(); }

}  // namespace ringlet::nn
