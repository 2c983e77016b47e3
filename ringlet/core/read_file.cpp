#include "ringlet/core/read_file.h"

#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>
#include <utility>

#include "ringlet/core/decode_text.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

std::string read_file(const std::filesystem::path& path, std::uint64_t most) {
  const std::string where = path.string();
  std::error_code problem;
  const std::filesystem::file_status status = std::filesystem::status(path, problem);
  if (!std::filesystem::exists(status))
    throw Error(ErrorCode::not_found, where, "the file does not exist");
  if (!std::filesystem::is_regular_file(status))
    throw Error(ErrorCode::io, where, "is not a regular file");
  const std::uint64_t size = std::filesystem::file_size(path, problem);
  if (!problem && size > most)
    throw Error(ErrorCode::unsupported, where,
                "has " + human_bytes(size) + "; the limit is " + human_bytes(most));
  std::ifstream stream(path, std::ios::binary);
  std::string content{std::istreambuf_iterator<char>(stream), {}};
  if (!stream) throw Error(ErrorCode::io, where, "cannot be read");
  return content;
}

std::string without_byte_order_mark(std::string text) {
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  return text;
}

void skip_byte_order_mark(std::istream& stream) {
  std::string begin(kByteOrderMark.size(), '\0');
  const auto start = stream.tellg();
  stream.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  if (stream && begin == kByteOrderMark) return;
  stream.clear();
  stream.seekg(start);
}

std::string read_text_file(const std::filesystem::path& path, std::uint64_t most) {
  return decode_text(read_file(path, most), path.string());
}

std::vector<std::string> read_text_lines(const std::filesystem::path& path) {
  std::istringstream stream(read_text_file(path));
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) {
    if (line.ends_with('\r')) line.pop_back();
    lines.push_back(line);
  }
  return lines;
}

}  // namespace ringlet
