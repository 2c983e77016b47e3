#include "ringlet/train/score_file.h"

#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <utility>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

std::string header(const std::vector<std::string>& columns) { return "step," + join(columns, ","); }

MeasuredStep read_row(const fs::path& file, const std::string& line, std::size_t columns) {
  MeasuredStep row;
  row.values.resize(columns);
  const char* at = line.data();
  const char* const end = at + line.size();
  const auto take = [&](auto& value) {
    const auto [next, problem] = std::from_chars(at, end, value);
    if (problem != std::errc())
      throw Error(ErrorCode::bad_format, file.string(), "a row cannot be read: \"" + line + "\"",
                  "the file was changed; move it away");
    at = next == end ? next : next + 1;
  };
  take(row.step);
  for (double& value : row.values) take(value);
  return row;
}

}  // namespace

std::string number_text(double value) {
  if (!std::isfinite(value)) return "nan";
  std::array<char, 32> text{};
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

ScoreFile::ScoreFile(fs::path file, std::vector<std::string> columns, std::int64_t last_step)
    : file_(std::move(file)), columns_(std::move(columns)) {
  if (last_step == 0 || !fs::exists(file_)) return;
  std::ifstream stream(file_);
  std::string line;
  if (!std::getline(stream, line) || line != header(columns_))
    throw Error(ErrorCode::bad_format, file_.string(), "does not hold the scores of this run",
                "move it away");
  while (std::getline(stream, line))
    if (MeasuredStep row = read_row(file_, line, columns_.size()); row.step <= last_step)
      rows_.push_back(std::move(row));
}

void ScoreFile::add(std::int64_t step, std::vector<double> values) {
  while (!rows_.empty() && rows_.back().step >= step) rows_.pop_back();
  rows_.push_back({step, std::move(values)});
  std::string text = header(columns_) + "\n";
  for (const MeasuredStep& row : rows_) {
    text += std::to_string(row.step);
    for (const double value : row.values) text += "," + number_text(value);
    text += "\n";
  }
  write_file_atomically(file_, text);
}

}  // namespace ringlet::train
