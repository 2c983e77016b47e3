// A lock on a folder's work that ends with the process that holds it.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>

namespace ringlet {

/// A lock that ends with its holders, also when they are killed: the kernel gives it back, and
/// nobody guesses from ids or dates whether it is stale. Only the lock on the file counts.
class FolderLock {
 public:
  /// Makes the file where there is none, and tries for the lock for as long as `patience` says.
  /// Not held when another process has it. Throws Error(io).
  explicit FolderLock(const std::filesystem::path& file, std::chrono::milliseconds patience = {});
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&&) = delete;
  explicit operator bool() const { return held_; }
  int descriptor() const { return descriptor_; }

  /// Says in the file who holds the lock, for those who do not get it; "" says nothing. One line
  /// that replaces the one before. A disk that is full is no reason to stop.
  void sign(std::string_view holder) const;

  /// Removes the file, for a holder that is about to end. Whoever waits notices, and makes another.
  void remove_file() const;

  /// What the last holder has signed with; "" = nothing.
  std::string signature() const;

  /// Whether somebody holds the lock of this file now. Makes nothing.
  static bool is_held(const std::filesystem::path& file);

 private:
  bool open_and_try();

  std::filesystem::path file_;
  int descriptor_ = -1;
  bool held_ = false;
};

}  // namespace ringlet
