// Other programs, and this one again, as children.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace ringlet::app {

struct ChildResult {
  int status = 0;                ///< exit status; 128 + n when signal n ended it
  std::uint64_t peak_bytes = 0;  ///< of resident memory
};

/// A lock that ends with its holders, also when they are killed. Nothing when another process has
/// it.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& file);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  explicit operator bool() const { return held_; }
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_ = -1;
  bool held_ = false;
};

/// Runs this very program with these arguments; stdout replaces `output`, stderr is added to `log`.
/// An interrupt of this program is passed on once: the child is in its own process group, so that
/// Ctrl-C does not also reach it directly and kill it. It holds `lock` as well and keeps it when
/// this program is killed. Throws Error(io) when it cannot be started.
ChildResult run_self(const std::vector<std::string>& arguments, const std::filesystem::path& output,
                     const std::filesystem::path& log, const FolderLock& lock);

/// Runs a command of the shell with these arguments after its own; what it prints goes to stderr.
/// Interrupts are passed on, as by run_self. Throws Error(io) when there is no shell.
ChildResult run_command(const std::string& command, const std::vector<std::string>& arguments);

}  // namespace ringlet::app
