// The only writer of files: the target is complete or untouched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

namespace ringlet {

/// Writes to a temporary file beside the target; commit() flushes it to disk, renames it over the
/// target and flushes the folder. Without commit() the destructor removes the temporary file and
/// the target stays as it was. Mode bits follow the umask, or the replaced file's own.
/// Throws Error(io | no_space | not_found).
class AtomicFile {
 public:
  /// `expected_bytes`, when known, is checked against the free space before anything is written.
  explicit AtomicFile(std::filesystem::path target, std::uint64_t expected_bytes = 0);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);

  /// Brings all that was written to the disk, under the temporary name; commit() does it where
  /// nobody has. What must be there before the target is can be written in between.
  void flush();
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  bool flushed_ = false;
};

/// Writes a whole file atomically.
void write_file_atomically(const std::filesystem::path& target, std::string_view content);

}  // namespace ringlet
