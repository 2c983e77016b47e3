#include "ringlet/train/score_file.h"

#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string_view>
#include <utility>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFirstColumn = "step,";

std::string header(const std::vector<std::string>& columns) {
  return std::string(kFirstColumn) + join(columns, ",");
}

std::vector<std::string> columns_of(std::string_view line) {
  std::vector<std::string> columns;
  std::istringstream rest{std::string(line.substr(kFirstColumn.size()))};
  for (std::string name; std::getline(rest, name, ',');) columns.push_back(std::move(name));
  return columns;
}

Error of_another_run(const fs::path& file) {
  return {ErrorCode::bad_format, file.string(), "does not hold the scores of this run",
          "move it away"};
}

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

ScoreFile::ScoreFile(fs::path file, std::int64_t last_step) : file_(std::move(file)) {
  if (last_step == 0 || !fs::exists(file_)) return;
  std::ifstream stream(file_);
  std::string line;
  if (!std::getline(stream, line) || !line.starts_with(kFirstColumn)) throw of_another_run(file_);
  columns_ = columns_of(line);
  while (std::getline(stream, line))
    if (MeasuredStep row = read_row(file_, line, columns_.size()); row.step <= last_step)
      rows_.push_back(std::move(row));
}

void ScoreFile::add(std::int64_t step, const std::vector<Score>& scores) {
  std::vector<std::string> names;
  std::vector<double> values;
  for (const Score& score : scores) {
    names.push_back(score.name);
    values.push_back(score.value);
  }
  while (!rows_.empty() && rows_.back().step >= step) rows_.pop_back();
  if (!rows_.empty() && names != columns_) throw of_another_run(file_);
  columns_ = std::move(names);
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
