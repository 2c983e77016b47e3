#include "ringlet/train/run_lock.h"

#include <array>
#include <chrono>
#include <ctime>
#include <thread>

#include <unistd.h>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/read_file.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLockFile = "run.lock";

/// Longer than anybody only looks whether the lock is held.
constexpr auto kPatience = std::chrono::milliseconds(100);

std::string local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::localtime_r(&now, &parts);
  std::array<char, 40> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts)};
}

std::string this_process() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host = {"this machine"};
  return "process " + std::to_string(::getpid()) + " on " + host.data() + " since " + local_time();
}

[[noreturn]] void refuse(const fs::path& out, const std::string& who) {
  throw Error(ErrorCode::invalid_argument, out.string(),
              "is in use: " + who + " is training in this folder",
              "wait for it or stop it, or choose another `out`");
}

FolderLock lock_of(const fs::path& out) {
  make_folder(out, "choose another `out`");
  return FolderLock(out / kLockFile, kPatience);
}

}  // namespace

RunLock::RunLock(const fs::path& out) : lock_(lock_of(out)) {
  if (!lock_) {
    const std::string who = holder(out);
    refuse(out, who.empty() ? "another process" : who);
  }
  if (const std::string before = lock_.signature(); !before.empty())
    log(LogLevel::info, out.string() + ": " + before +
                            " has ended without giving the folder back; it is taken over");
  lock_.sign(this_process());
}

RunLock::~RunLock() { lock_.remove_file(); }

std::string RunLock::holder(const fs::path& out) {
  const fs::path file = out / kLockFile;
  // Whoever has just taken the lock signs a moment later.
  constexpr int kTries = 10;
  for (int i = 0; i < kTries && FolderLock::is_held(file); ++i) {
    try {
      if (const std::string who = read_file(file); !who.empty()) return who;
    } catch (const Error&) {  // may not be read by this user
      break;
    }
    std::this_thread::sleep_for(kPatience / kTries);
  }
  return FolderLock::is_held(file) ? "another process" : "";
}

void RunLock::refuse_held(const fs::path& out) {
  if (const std::string who = holder(out); !who.empty()) refuse(out, who);
}

}  // namespace ringlet::train
