#include "ringlet/formats/ldm/ldm_names.h"

namespace ringlet::formats {

std::optional<std::string> replace_prefix(const std::string& name, const NameTable& table) {
  for (const auto& [from, to] : table)
    if (name.starts_with(from)) return to + name.substr(from.size());
  return std::nullopt;
}

}  // namespace ringlet::formats
