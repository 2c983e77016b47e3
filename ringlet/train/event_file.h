// TensorBoard event files, written without protobuf: their wire format is small.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "ringlet/core/append_file.h"

namespace ringlet::train {

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
  /// Error(invalid_argument) for a tag that is not UTF-8, after which no reader could continue.
  explicit EventFile(const std::filesystem::path& folder, WallClock wall_time = &system_wall_clock);

  void add_scalar(std::string_view tag, std::int64_t step, double value);  ///< kept as a float
  /// `png` is a whole PNG file of this size.
  void add_image(std::string_view tag, std::int64_t step, std::string_view png, std::int64_t width,
                 std::int64_t height);
  /// For a resumed run: readers forget the events of this folder's earlier files
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
