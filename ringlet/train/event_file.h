// TensorBoard event files, written without protobuf: their wire format is small.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace ringlet::train {

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

/// CRC-32C (Castagnoli; RFC 3720, section 12.1).
std::uint32_t crc32c(std::string_view bytes);

/// Seconds since 1970.
using WallClock = std::function<double()>;
double system_wall_clock();

/// Scalars and pictures for TensorBoard: "events.out.tfevents.<seconds>.ringlet" in `folder`, with
/// later seconds where that name is taken. Every event can be read as soon as its call returns.
class EventFile {
 public:
  /// Throws Error(not_found | io | no_space); so do the other functions, and
  /// Error(invalid_argument) for a tag that is not UTF-8, with which no reader could go on.
  explicit EventFile(const std::filesystem::path& folder, WallClock wall_time = &system_wall_clock);

  void add_scalar(std::string_view tag, std::int64_t step, double value);  ///< kept as a float
  /// `png` is a whole PNG file of this size.
  void add_image(std::string_view tag, std::int64_t step, std::string_view png, std::int64_t width,
                 std::int64_t height);
  /// For a run that goes on after a break: readers forget the events of this folder's earlier files
  /// from `step` on, which come again.
  void restart_at(std::int64_t step);
  /// To the disk, so that the events survive a power failure.
  void flush() { file_.flush(); }

  const std::filesystem::path& path() const { return file_.path(); }

 private:
  void add_value(std::string_view tag, std::int64_t step, std::string_view content);

  WallClock wall_time_;
  AppendFile file_;
};

}  // namespace ringlet::train
