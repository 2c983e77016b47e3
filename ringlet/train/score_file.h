// Numbers that are measured now and then during a run: a CSV file with a row per measurement.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ringlet/train/score.h"

namespace ringlet::train {

struct MeasuredStep {
  std::int64_t step = 0;
  std::vector<double> values;  ///< one per column
};

/// "step,COLUMN,…". What is not finite is "nan".
class ScoreFile {
 public:
  /// Keeps the rows of the file, if there is one, up to `last_step` (0 = starts again). Throws
  /// Error(bad_format) for a file of another form.
  ScoreFile(std::filesystem::path file, std::int64_t last_step);

  /// Rewrites the file atomically, with a column per score. Rows of this and later steps, from
  /// before an interruption, are replaced. Throws Error(bad_format) where the file has other
  /// columns, and Error(io | no_space).
  void add(std::int64_t step, const std::vector<Score>& scores);

  const std::vector<MeasuredStep>& rows() const { return rows_; }
  const std::vector<std::string>& columns() const { return columns_; }

 private:
  std::filesystem::path file_;
  std::vector<std::string> columns_;
  std::vector<MeasuredStep> rows_;
};

/// The shortest text that reads back as the number; "nan" for what is not finite.
std::string number_text(double value);

}  // namespace ringlet::train
