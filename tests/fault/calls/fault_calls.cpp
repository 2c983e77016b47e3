#include "tests/fault/calls/fault_calls.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <utility>

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

namespace ringlet::faults {
namespace {

struct State {
  std::mutex mutex;
  std::optional<Plan> plan;
  std::string recorded_folder;
  std::vector<Record> records;
  int count = 0;
};

std::atomic<bool> active = false;

State& state() {
  static State* const only = new State;  // calls come after the last destructor, too
  return *only;
}

template <class Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

bool below(const std::string& folder, const std::string& path) {
  return !folder.empty() &&
         (path == folder || (path.starts_with(folder) && path[folder.size()] == '/'));
}

std::string path_of(int descriptor) {
  char path[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  const ssize_t size = ::readlink(link.c_str(), path, sizeof path);
  return {path, size > 0 ? static_cast<std::size_t>(size) : 0};
}

/// What is to happen to a call.
struct Fate {
  std::optional<Action> action;
  int error_number = 0;
};

Fate fate_of(const std::string& path) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const bool armed = s.plan && below(s.plan->folder, path);
  if (!armed && !below(s.recorded_folder, path)) return {};
  ++s.count;
  if (!armed) return {};
  const bool now = s.count == s.plan->nth || (s.plan->persistent && s.count > s.plan->nth);
  if (!now) return {};
  return {s.plan->action, s.plan->error_number};
}

void note(const Record& record) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  if (below(s.recorded_folder, record.path)) s.records.push_back(record);
}

[[noreturn]] void die() {
  ::kill(::getpid(), SIGKILL);
  while (true) ::pause();
}

/// A call that has no parts: it fails, or ends the process before it, or is done and noted.
template <class Work>
int whole_call(const Record& record, const Work& work) {
  if (!active) return work();
  const Fate fate = fate_of(record.path);
  if (fate.action == Action::kill) die();
  if (fate.action == Action::fail) {
    errno = fate.error_number;
    return -1;
  }
  const int result = work();
  const int problem = errno;
  if (result >= 0) note(record);
  errno = problem;
  return result;
}

/// Flags of open() with which a file can be changed or a folder flushed.
bool counts(int flags) { return (flags & (O_WRONLY | O_RDWR | O_CREAT | O_DIRECTORY)) != 0; }

int counted_open(const char* name, const char* path, int flags, mode_t mode) {
  const auto work = [&] { return real<int (*)(const char*, int, ...)>(name)(path, flags, mode); };
  if (!counts(flags)) return work();
  return whole_call({Call::open, path}, work);
}

/// Orders of a program that this is preloaded to.
[[gnu::constructor]] void take_orders() {
  const char* folder = std::getenv("RINGLET_FAULT_FOLDER");
  const char* nth = std::getenv("RINGLET_FAULT_NTH");
  const char* action = std::getenv("RINGLET_FAULT_ACTION");
  if (folder == nullptr || nth == nullptr || action == nullptr) return;
  const bool kills = std::string(action) == "kill";
  arm({folder, std::atoi(nth), kills ? Action::kill : Action::fail, kills ? 0 : std::atoi(action)});
}

}  // namespace

void arm(const Plan& plan) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.plan = plan;
  s.count = 0;
  active = true;
}

void disarm() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.plan.reset();
  active = !s.recorded_folder.empty();
}

int calls() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  return s.count;
}

void record(const std::string& folder) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.recorded_folder = folder;
  s.records.clear();
  s.count = 0;
  active = true;
}

std::vector<Record> recorded() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.recorded_folder.clear();
  active = s.plan.has_value();
  return std::move(s.records);
}

}  // namespace ringlet::faults

// The calls themselves, under libc's names.
using namespace ringlet::faults;

extern "C" {

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return counted_open("open", path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return counted_open("open64", path, flags, mode);
}

ssize_t write(int descriptor, const void* bytes, size_t size) {
  static const auto next = real<ssize_t (*)(int, const void*, size_t)>("write");
  if (!active) return next(descriptor, bytes, size);
  const std::string path = path_of(descriptor);
  const Fate fate = fate_of(path);
  if (fate.action == Action::fail) {
    errno = fate.error_number;
    return -1;
  }
  const bool half = fate.action.has_value() && size > 1;
  const ssize_t written = next(descriptor, bytes, half ? size / 2 : size);
  const int problem = errno;
  if (fate.action == Action::kill) die();
  if (written > 0)
    note({Call::write,
          path,
          {},
          std::string(static_cast<const char*>(bytes), static_cast<size_t>(written))});
  errno = problem;
  return written;
}

int fsync(int descriptor) {
  static const auto next = real<int (*)(int)>("fsync");
  if (!active) return next(descriptor);
  return whole_call({Call::fsync, path_of(descriptor)}, [&] { return next(descriptor); });
}

int rename(const char* from, const char* to) noexcept {
  static const auto next = real<int (*)(const char*, const char*)>("rename");
  return whole_call({Call::rename, from, to}, [&] { return next(from, to); });
}

int unlink(const char* path) noexcept {
  static const auto next = real<int (*)(const char*)>("unlink");
  return whole_call({Call::unlink, path}, [&] { return next(path); });
}

int remove(const char* path) noexcept {
  static const auto next = real<int (*)(const char*)>("remove");
  return whole_call({Call::unlink, path}, [&] { return next(path); });
}

int ftruncate(int descriptor, off_t size) noexcept {
  static const auto next = real<int (*)(int, off_t)>("ftruncate");
  if (!active) return next(descriptor, size);
  return whole_call({Call::truncate, path_of(descriptor), {}, {}, static_cast<long>(size)},
                    [&] { return next(descriptor, size); });
}

}  // extern "C"
