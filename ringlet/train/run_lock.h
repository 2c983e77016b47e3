// One process trains in a folder.
#pragma once

#include <filesystem>
#include <string>

#include "ringlet/core/folder_lock.h"

namespace ringlet::train {

/// Holds a run's folder for this process, from its construction to its destruction or to the end of
/// the process, however it ends. The lock is on OUT/run.lock (core/folder_lock.h); the file says
/// who holds it.
class RunLock {
 public:
  /// Makes the folder where there is none. Throws Error(invalid_argument) that names the process
  /// which trains there, and Error(io | no_space). Says in the log when it takes over from one that
  /// ended without giving the folder back.
  explicit RunLock(const std::filesystem::path& out);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  /// Who trains in the folder now: "process 4242 on host since 2026-11-30 12:00:00"; "" = nobody.
  /// Makes nothing.
  static std::string holder(const std::filesystem::path& out);

  /// Throws Error(invalid_argument) when somebody trains in the folder now. Makes nothing.
  static void refuse_held(const std::filesystem::path& out);

 private:
  FolderLock lock_;
};

}  // namespace ringlet::train
