#include "ringlet/nn/byte_count.h"

#include <algorithm>
#include <atomic>

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

namespace ringlet::nn {
namespace {

/// What LibTorch's allocators tell, as they tell its profiler.
class Reports final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, std::int64_t bytes, std::size_t, std::size_t,
                         c10::Device) override {
    const std::int64_t now = now_ += bytes;
    std::int64_t before = peak_;
    while (now > before && !peak_.compare_exchange_weak(before, now)) {
    }
  }
  bool memoryProfilingEnabled() const override { return true; }

  std::int64_t now() const { return now_; }
  std::int64_t peak() const { return peak_; }

 private:
  std::atomic<std::int64_t> now_ = 0, peak_ = 0;
};

}  // namespace

struct ByteCount::Counting {
  std::shared_ptr<Reports> reports = std::make_shared<Reports>();
  c10::DebugInfoGuard guard{c10::DebugInfoKind::PROFILER_STATE, reports};
};

ByteCount::ByteCount() : counting_(std::make_unique<Counting>()) {}
ByteCount::~ByteCount() = default;

std::int64_t ByteCount::now() const { return counting_->reports->now(); }
std::int64_t ByteCount::peak() const { return counting_->reports->peak(); }

}  // namespace ringlet::nn
