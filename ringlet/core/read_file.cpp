#include "ringlet/core/read_file.h"

#include <fstream>
#include <iterator>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet {

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

}  // namespace ringlet
