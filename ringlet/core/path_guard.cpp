#include "ringlet/core/path_guard.h"

#include <algorithm>
#include <string>
#include <system_error>

#include "ringlet/core/error.h"

namespace ringlet {

std::filesystem::path resolve_under(const std::filesystem::path& root, std::string_view name) {
  const bool plain =
      !name.empty() && name != "." && name != ".." && std::ranges::none_of(name, [](char c) {
        return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
      });
  if (!plain)
    throw Error(ErrorCode::bad_format, root.string(),
                "the file name \"" + std::string(name) + "\" is not a plain name",
                "only files in the same folder may be named");
  const std::filesystem::path path = root / std::filesystem::path(name);
  std::error_code code;
  if (!std::filesystem::exists(path, code))
    throw Error(ErrorCode::not_found, path.string(), "the file does not exist",
                "another file of its folder names it; copy or download the folder again");
  return path;
}

}  // namespace ringlet
