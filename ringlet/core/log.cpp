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

}  // namespace

LogSink set_log_sink(LogSink sink) {
  SinkSlot& slot = sink_slot();
  std::lock_guard lock(slot.mutex);
  std::swap(slot.sink, sink);
  return sink;
}

void log(LogLevel level, std::string_view message) {
  SinkSlot& slot = sink_slot();
  std::lock_guard lock(slot.mutex);
  if (slot.sink) slot.sink(level, message);
}

}  // namespace ringlet
