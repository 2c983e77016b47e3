#include "ringlet/core/log.h"

#include <mutex>
#include <utility>

namespace ringlet {
namespace {

struct SinkSlot {
  std::mutex mutex;
  LogSink sink;
};

SinkSlot& sink_slot() {
  static SinkSlot slot;
  return slot;
}

thread_local const ThreadLogSink* thread_sink = nullptr;

}  // namespace

LogSink set_log_sink(LogSink sink) {
  SinkSlot& slot = sink_slot();
  std::lock_guard lock(slot.mutex);
  std::swap(slot.sink, sink);
  return sink;
}

ThreadLogSink::ThreadLogSink(LogSink sink)
    : sink_(std::move(sink)), before_(std::exchange(thread_sink, this)) {}

ThreadLogSink::~ThreadLogSink() { thread_sink = before_; }

void log(LogLevel level, std::string_view message) {
  if (thread_sink != nullptr) {
    if (thread_sink->sink_) thread_sink->sink_(level, message);
    return;
  }
  SinkSlot& slot = sink_slot();
  std::lock_guard lock(slot.mutex);
  if (slot.sink) slot.sink(level, message);
}

}  // namespace ringlet
