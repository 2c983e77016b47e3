#include "ringlet/core/folder_lock.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ringlet/core/error.h"
#include "ringlet/core/system_call.h"

namespace ringlet {
namespace {

constexpr auto kBetweenTries = std::chrono::milliseconds(20);

Error lock_error(const char* what, const std::filesystem::path& file, int problem) {
  return {ErrorCode::io, file.string(), std::string(what) + ": " + std::strerror(problem)};
}

/// True when it is held now; false when another one has it.
bool try_lock(int descriptor, int kind, const std::filesystem::path& file) {
  if (retried("folder_lock.lock", [&] { return ::flock(descriptor, kind | LOCK_NB); }) == 0)
    return true;
  if (errno != EWOULDBLOCK) throw lock_error("the lock cannot be acquired", file, errno);
  return false;
}

}  // namespace

FolderLock::FolderLock(const std::filesystem::path& file, std::chrono::milliseconds patience)
    : file_(file) {
  const auto end = std::chrono::steady_clock::now() + patience;
  try {
    while (!(held_ = open_and_try()) && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(kBetweenTries);
  } catch (...) {
    if (descriptor_ >= 0) ::close(descriptor_);
    throw;
  }
}

/// A file that the last holder has removed meanwhile is nobody's: there may be another one.
bool FolderLock::open_and_try() {
  constexpr int kReadable = 0644;
  while (true) {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = retried("folder_lock.open", [&] {
      return ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kReadable);
    });
    if (descriptor_ < 0) throw lock_error("the lock cannot be created", file_, errno);
    if (!try_lock(descriptor_, LOCK_EX, file_)) return false;
    struct stat locked {
    }, present{};
    if (::fstat(descriptor_, &locked) == 0 && ::stat(file_.c_str(), &present) == 0 &&
        locked.st_ino == present.st_ino && locked.st_dev == present.st_dev)
      return true;
  }
}

FolderLock::FolderLock(FolderLock&& other) noexcept
    : file_(std::move(other.file_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      held_(std::exchange(other.held_, false)) {}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void FolderLock::sign(std::string_view holder) const {
  if (::ftruncate(descriptor_, 0) != 0) return;
  // In place: another file would not be the one that is locked.
  static_cast<void>(::pwrite(descriptor_, holder.data(), holder.size(), 0) < 0);
}

void FolderLock::remove_file() const { ::unlink(file_.c_str()); }

std::string FolderLock::signature() const {
  constexpr std::size_t kLongest = 1000;
  std::array<char, kLongest> text{};
  const ssize_t size = ::pread(descriptor_, text.data(), text.size(), 0);
  return {text.data(), size > 0 ? static_cast<std::size_t>(size) : 0};
}

bool FolderLock::is_held(const std::filesystem::path& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return false;
  bool held = false;
  try {
    held = !try_lock(descriptor, LOCK_SH, file);
  } catch (const Error&) {  // what cannot be locked is locked by nobody
    held = false;
  }
  ::close(descriptor);
  return held;
}

}  // namespace ringlet
