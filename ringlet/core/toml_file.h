// TOML files, as JSON.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "ringlet/core/json.h"

namespace ringlet {

/// Tables become objects, arrays arrays, dates texts. Throws Error(not_found | io), and
/// Error(bad_format) with line and column for text that is not TOML.
Json read_toml_file(const std::filesystem::path& path);

/// A TOML file that remembers where its keys are.
struct LocatedToml {
  std::filesystem::path path;
  Json json;
  std::map<std::string, std::int64_t> lines;  ///< of keys and tables, by JSON pointer

  /// "train.toml:12" of a key ("/dataset/0/repeats"), or of the nearest table around it.
  std::string place(std::string pointer) const;
};

/// The same with the places of all keys. Throws as read_toml_file.
LocatedToml read_located_toml(const std::filesystem::path& path);

}  // namespace ringlet
