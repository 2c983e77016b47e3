// Helpers for name tables.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ringlet::formats {

using NameTable = std::vector<std::pair<std::string, std::string>>;

/// `name` with the first matching prefix of the table replaced, or nothing.
std::optional<std::string> replace_prefix(const std::string& name, const NameTable& table);

}  // namespace ringlet::formats
