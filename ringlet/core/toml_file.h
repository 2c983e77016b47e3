// TOML files, as JSON.
#pragma once

#include <filesystem>

#include "ringlet/core/json.h"

namespace ringlet {

/// Tables become objects, arrays arrays, dates texts. Throws Error(not_found | io), and
/// Error(bad_format) with line and column for text that is not TOML.
Json read_toml_file(const std::filesystem::path& path);

}  // namespace ringlet
