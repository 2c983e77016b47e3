// metrics.csv: one line per optimizer step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "ringlet/core/append_file.h"

namespace ringlet::train {

struct MetricsRow {
  std::int64_t step = 0;  ///< 1 = the first
  double loss = 0.0;
  double learning_rate = 0.0;
  double gradient_norm = 0.0;
  double seconds = 0.0;      ///< of training so far
  std::int64_t skipped = 0;  ///< steps so far that changed no weight
};

/// Writes "step,loss,learning_rate,gradient_norm,seconds,skipped" and a line per row. Numbers read
/// back exactly; what is not finite is "nan", "inf" or "-inf".
class MetricsFile {
 public:
  /// With `resume_step` 0 a new file, which replaces one of that name. Otherwise the existing rows
  /// up to and including that step are kept and the later ones, which come again, are dropped; a
  /// file that is absent starts empty. Throws Error(io | no_space | not_found), and
  /// Error(bad_format) when the rows to keep cannot be read.
  explicit MetricsFile(const std::filesystem::path& path, std::int64_t resume_step = 0);

  /// The line can be read when this returns. Throws Error(io | no_space).
  void add(const MetricsRow& row);

  /// To the disk, so that the rows survive a power failure. Throws Error(io | no_space).
  void flush() { file_.flush(); }

 private:
  AppendFile file_;
};

/// The rows of a metrics file, in its order. A last line without its end, left by a kill or still
/// being written, is ignored. Throws Error(not_found | io | bad_format).
std::vector<MetricsRow> read_metrics(const std::filesystem::path& path);

}  // namespace ringlet::train
