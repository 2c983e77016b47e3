#include "ringlet/service/text_lines.h"

#include "ringlet/core/error.h"
#include "ringlet/core/read_file.h"

namespace ringlet::service {

std::vector<std::string> read_lines(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path) || std::filesystem::is_directory(path))
    throw Error(ErrorCode::not_found, path.string(), "the text file cannot be read");
  std::vector<std::string> lines;
  for (const std::string& line : read_text_lines(path)) {
    if (!line.empty()) lines.push_back(line);
  }
  if (lines.empty())
    throw Error(ErrorCode::invalid_argument, path.string(), "the file has no line",
                "write one entry per line");
  return lines;
}

}  // namespace ringlet::service
