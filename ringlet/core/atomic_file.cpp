#include "ringlet/core/atomic_file.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "ringlet/core/error.h"
#include "ringlet/core/system_call.h"
#include "ringlet/core/text.h"

namespace ringlet {
namespace {

namespace fs = std::filesystem;

/// What a failed step leaves at the target.
enum class Target { unchanged, replaced };

[[noreturn]] void fail(const fs::path& path, const char* action, int error_number, Target target) {
  const bool full = error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG;
  const std::string state = target == Target::unchanged
                                ? "the previous file, if any, is unchanged"
                                : "the new file is in place, but might not survive a power failure";
  throw Error(full ? ErrorCode::no_space : ErrorCode::io, path.string(),
              std::string("cannot ") + action + ": " +
                  std::error_code(error_number, std::generic_category()).message(),
              full ? "free some space or choose another folder; " + state : state);
}

/// One step of a save.
template <class Call>
auto step(const fs::path& path, const char* name, const char* action, Call call,
          Target target = Target::unchanged) {
  const auto result = retried(name, call);
  if (result < 0) fail(path, action, errno, target);
  return result;
}

void flush_folder(const fs::path& folder) {
  const int descriptor = step(
      folder, "atomic_file.open_folder", "open the folder",
      [&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }, Target::replaced);
  const int result = retried("atomic_file.fsync_folder", [&] { return ::fsync(descriptor); });
  const int error_number = errno;
  ::close(descriptor);
  // Some file systems cannot flush a folder; the rename itself has succeeded.
  if (result != 0 && error_number != EINVAL && error_number != EROFS)
    fail(folder, "flush the folder", error_number, Target::replaced);
}

void check_free_space(const fs::path& folder, std::uint64_t needed) {
  struct statvfs info {};
  if (::statvfs(folder.c_str(), &info) != 0) return;
  const std::uint64_t available = std::uint64_t{info.f_bavail} * info.f_frsize;
  if (needed > available)
    throw Error(
        ErrorCode::no_space, folder.string(),
        "has " + human_bytes(available) + " free, but the file needs " + human_bytes(needed),
        "free some space or choose another folder");
}

/// Follows a symbolic link at the target, so that the link stays and its file is replaced.
fs::path resolve_link(fs::path target) {
  std::error_code code;
  for (int hops = 0; hops < 40 && fs::is_symlink(fs::symlink_status(target, code)); ++hops) {
    const fs::path next = fs::read_symlink(target, code);
    target = next.is_absolute() ? next : target.parent_path() / next;
  }
  return target;
}

}  // namespace

AtomicFile::AtomicFile(fs::path target, std::uint64_t expected_bytes)
    : target_(resolve_link(std::move(target))) {
  const fs::path folder = target_.parent_path().empty() ? fs::path(".") : target_.parent_path();
  std::error_code code;
  if (!fs::is_directory(folder, code))
    throw Error(ErrorCode::not_found, folder.string(), "the folder does not exist",
                "create it first");
  if (fs::is_directory(target_, code))
    throw Error(ErrorCode::io, target_.string(), "is a folder, not a file");
  check_free_space(folder, expected_bytes);

  // Process id and count keep all writers of one target apart; the last rename wins.
  static std::atomic<unsigned> count{0};
  temporary_ = folder / ("." + target_.filename().string() + "." + std::to_string(::getpid()) +
                         "-" + std::to_string(count++) + ".tmp");
  struct stat previous {};
  const bool replaces = ::stat(target_.c_str(), &previous) == 0;
  const mode_t mode = replaces ? previous.st_mode & 07777 : 0666;
  descriptor_ = step(target_, "atomic_file.open", "create a file beside it", [&] {
    return ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  });
  if (replaces) ::fchmod(descriptor_, mode);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  flushed_ = false;
  while (!bytes.empty()) {
    const ssize_t written = step(target_, "atomic_file.write", "write",
                                 [&] { return ::write(descriptor_, bytes.data(), bytes.size()); });
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::flush() {
  if (flushed_) return;
  step(target_, "atomic_file.fsync", "flush", [&] { return ::fsync(descriptor_); });
  flushed_ = true;
}

void AtomicFile::commit() {
  flush();
  step(target_, "atomic_file.rename", "rename the new file into place",
       [&] { return ::rename(temporary_.c_str(), target_.c_str()); });
  ::close(std::exchange(descriptor_, -1));
  flush_folder(target_.parent_path().empty() ? fs::path(".") : target_.parent_path());
}

void write_file_atomically(const fs::path& target, std::string_view content) {
  AtomicFile file(target, content.size());
  file.write(content);
  file.commit();
}

}  // namespace ringlet
