#include "ringlet/core/failpoint.h"

#include <atomic>
#include <mutex>
#include <string>

namespace ringlet {
namespace {

struct Armed {
  std::atomic<bool> any = false;
  std::mutex mutex;
  std::string name;
  int error_number = 0;
  int calls_left = 0;
  bool persistent = false;
};

Armed& armed() {
  static Armed state;
  return state;
}

}  // namespace

void arm_failpoint(std::string_view name, int error_number, int nth, bool persistent) {
  Armed& state = armed();
  const std::lock_guard lock(state.mutex);
  state.name = name;
  state.error_number = error_number;
  state.calls_left = nth;
  state.persistent = persistent;
  state.any = !name.empty();
}

int failpoint(std::string_view name) {
  Armed& state = armed();
  if (!state.any) return 0;
  const std::lock_guard lock(state.mutex);
  // "atomic_file" arms every step whose name starts so: the n-th system call of a save fails.
  if (state.name.empty() || !name.starts_with(state.name)) return 0;
  if (--state.calls_left > 0) return 0;
  const bool now = state.calls_left == 0 || state.persistent;
  return now ? state.error_number : 0;
}

}  // namespace ringlet
