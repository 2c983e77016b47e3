#include "ringlet/core/append_file.h"

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ringlet/core/error.h"
#include "ringlet/core/system_call.h"

namespace ringlet {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& path, const char* action, int error_number) {
  const bool full = error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG;
  const bool absent = error_number == ENOENT || error_number == ENOTDIR;
  throw Error(full     ? ErrorCode::no_space
              : absent ? ErrorCode::not_found
                       : ErrorCode::io,
              path.string(),
              std::string("cannot ") + action + ": " +
                  std::error_code(error_number, std::generic_category()).message(),
              full ? "free some space or choose another folder" : "");
}

int open_to_append(const fs::path& path, int more_flags) {
  return retried("append_file.open", [&] {
    return ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | more_flags, 0666);
  });
}

}  // namespace

AppendFile::AppendFile(const fs::path& path) : AppendFile(path, open_to_append(path, 0)) {
  if (descriptor_ < 0) fail(path_, "open", errno);
}

AppendFile::AppendFile(fs::path path, int descriptor)
    : path_(std::move(path)), descriptor_(descriptor) {}

std::optional<AppendFile> AppendFile::create(const fs::path& path) {
  const int descriptor = open_to_append(path, O_CREAT | O_EXCL);
  if (descriptor >= 0) return AppendFile(path, descriptor);
  if (errno == EEXIST) return std::nullopt;
  fail(path, "create", errno);
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

AppendFile::~AppendFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void AppendFile::append(std::string_view record) {
  std::size_t done = 0;
  while (done < record.size()) {
    const ssize_t written = retried("append_file.write", [&] {
      return ::write(descriptor_, record.data() + done, record.size() - done);
    });
    if (written < 0) {
      const int error_number = errno;
      struct stat status {};
      // What the disk took of the record would make everything after it unreadable.
      if (done > 0 && ::fstat(descriptor_, &status) == 0 &&
          ::ftruncate(descriptor_, status.st_size - static_cast<off_t>(done)) != 0)
        fail(path_, "write a whole record", error_number);
      fail(path_, "write", error_number);
    }
    done += static_cast<std::size_t>(written);
  }
}

void AppendFile::flush() {
  if (retried("append_file.fsync", [&] { return ::fsync(descriptor_); }) != 0)
    fail(path_, "flush", errno);
}

}  // namespace ringlet
