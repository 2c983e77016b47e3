#include "ringlet/nn/byte_count.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include <c10/core/Allocator.h>
#include <c10/util/Logging.h>
#include <c10/util/ThreadLocalDebugInfo.h>

namespace ringlet::nn {
namespace {

/// What LibTorch's allocators tell, as they tell its profiler.
class Reports final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* place, std::int64_t bytes, std::size_t, std::size_t,
                         c10::Device) override {
    const std::scoped_lock lock(mutex_);
    if (bytes > 0) {
      blocks_[place] = static_cast<std::size_t>(bytes);
      now_ += bytes;
      peak_ = std::max(peak_, now_);
    } else if (const auto block = blocks_.find(place);
               block != blocks_.end()) {  // not an older one
      now_ -= static_cast<std::int64_t>(block->second);
      blocks_.erase(block);
    }
  }
  bool memoryProfilingEnabled() const override { return true; }

  std::int64_t now() const {
    const std::scoped_lock lock(mutex_);
    return now_;
  }
  std::int64_t peak() const {
    const std::scoped_lock lock(mutex_);
    return peak_;
  }
  std::map<const void*, std::size_t> blocks() const {
    const std::scoped_lock lock(mutex_);
    return blocks_;
  }

 private:
  mutable std::mutex mutex_;
  std::map<const void*, std::size_t> blocks_;
  std::int64_t now_ = 0, peak_ = 0;
};

}  // namespace

struct ByteCount::Counting {
  Counting() : level(std::exchange(FLAGS_caffe2_log_level, c10::GLOG_ERROR)) {}
  ~Counting() { FLAGS_caffe2_log_level = level; }
  Counting(const Counting&) = delete;
  Counting& operator=(const Counting&) = delete;

  int level;  ///< LibTorch warns of every older block that is freed, which is nothing to tell
  std::shared_ptr<Reports> reports = std::make_shared<Reports>();
  c10::DebugInfoGuard guard{c10::DebugInfoKind::PROFILER_STATE, reports};
};

ByteCount::ByteCount() : counting_(std::make_unique<Counting>()) {}
ByteCount::~ByteCount() = default;

std::int64_t ByteCount::now() const { return counting_->reports->now(); }
std::int64_t ByteCount::peak() const { return counting_->reports->peak(); }
std::map<const void*, std::size_t> ByteCount::blocks() const {
  return counting_->reports->blocks();
}

}  // namespace ringlet::nn
