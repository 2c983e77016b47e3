#include "ringlet/train/metrics_file.h"

#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHeader = "step,loss,learning_rate,gradient_norm,seconds,skipped";

template <class Number>
std::string digits(Number value) {
  std::array<char, 32> text{};
  const auto result = std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), result.ptr};
}

/// The shortest text that reads back as the same number. A NaN's sign means nothing.
std::string shortest(double value) { return std::isnan(value) ? "nan" : digits(value); }

std::string line(const MetricsRow& row) {
  return digits(row.step) + ',' + shortest(row.loss) + ',' + shortest(row.learning_rate) + ',' +
         shortest(row.gradient_norm) + ',' + shortest(row.seconds) + ',' + digits(row.skipped) +
         '\n';
}

/// Takes a number and the `after` that follows it (0 = the end) from the front of `text`.
template <class Number>
bool take(std::string_view& text, Number& out, char after) {
  const char* end = text.data() + text.size();
  const auto [next, problem] = std::from_chars(text.data(), end, out);
  if (problem != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(next - text.data()));
  if (after == '\0') return text.empty();
  if (text.empty() || text.front() != after) return false;
  text.remove_prefix(1);
  return true;
}

std::optional<MetricsRow> parse_line(std::string_view text) {
  MetricsRow row;
  const bool whole = take(text, row.step, ',') && take(text, row.loss, ',') &&
                     take(text, row.learning_rate, ',') && take(text, row.gradient_norm, ',') &&
                     take(text, row.seconds, ',') && take(text, row.skipped, '\0');
  return whole ? std::optional(row) : std::nullopt;
}

std::string read_text(const fs::path& path) {
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  if (!fs::exists(status))
    throw Error(ErrorCode::not_found, path.string(), "the file does not exist");
  if (!fs::is_regular_file(status))
    throw Error(ErrorCode::io, path.string(), "is not a regular file");
  std::ifstream stream(path, std::ios::binary);
  std::string text;
  std::array<char, 1 << 16> buffer{};
  while (stream.read(buffer.data(), buffer.size()) || stream.gcount() > 0)
    text.append(buffer.data(), static_cast<std::size_t>(stream.gcount()));
  if (!stream.eof()) throw Error(ErrorCode::io, path.string(), "cannot be read");
  return text;
}

/// Puts the rows to keep in place, whole, and returns the path for the appending that follows.
const fs::path& prepare(const fs::path& path, std::int64_t resume_step) {
  std::string text = std::string(kHeader) + '\n';
  std::error_code code;
  if (resume_step != 0 && fs::exists(path, code))
    for (const MetricsRow& row : read_metrics(path))
      if (row.step <= resume_step) text += line(row);
  write_file_atomically(path, text);
  return path;
}

}  // namespace

MetricsFile::MetricsFile(const fs::path& path, std::int64_t resume_step)
    : file_(prepare(path, resume_step)) {}

void MetricsFile::add(const MetricsRow& row) { file_.append(line(row)); }

std::vector<MetricsRow> read_metrics(const fs::path& path) {
  const std::string content = read_text(path);
  std::string_view text = content;
  std::vector<MetricsRow> rows;
  for (std::size_t number = 1;; ++number) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) {
      if (number == 1)
        throw Error(ErrorCode::bad_format, path.string(), "has no header line",
                    "expected \"" + std::string(kHeader) + "\"");
      return rows;
    }
    const std::string_view one = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (number == 1) {
      if (one != kHeader)
        throw Error(ErrorCode::bad_format, path.string(), "has another header line",
                    "expected \"" + std::string(kHeader) + "\"");
      continue;
    }
    const auto row = parse_line(one);
    if (!row)
      throw Error(ErrorCode::bad_format, path.string(),
                  "line " + std::to_string(number) + " is not a row of metrics",
                  "remove the line, or move the file away");
    rows.push_back(*row);
  }
}

}  // namespace ringlet::train
