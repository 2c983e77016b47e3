// The one exception to AtomicFile: a file that grows record by record.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

namespace ringlet {

/// A file that grows at its end while others read it, so it cannot be an AtomicFile. A record goes
/// out in one write call and needs no flush to be seen; one that does not fit on the disk is taken
/// back, so that the file ends with a whole record. One writer per file.
class AppendFile {
 public:
  /// Opens an existing file. Throws Error(not_found | io).
  explicit AppendFile(const std::filesystem::path& path);
  /// A new file, or nothing when the name is taken. Throws Error(not_found | io | no_space).
  static std::optional<AppendFile> create(const std::filesystem::path& path);
  ~AppendFile();
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&&) = delete;

  void append(std::string_view record);  ///< throws Error(io | no_space)
  void flush();                          ///< to the disk; throws Error(io | no_space)
  const std::filesystem::path& path() const { return path_; }

 private:
  AppendFile(std::filesystem::path path, int descriptor);

  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace ringlet
