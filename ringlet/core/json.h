// Strict JSON: the only way JSON enters ringlet.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "ringlet/core/error.h"

namespace ringlet {

using Json = nlohmann::json;

struct JsonLimits {
  std::size_t max_bytes = 64u << 20;
  int max_depth = 64;
};

/// Parses a whole JSON text. Rejects duplicate keys (also when spelled with escapes), invalid
/// UTF-8, trailing content, NUL bytes, depth and size over the limits. `where` names the source in
/// errors. Throws Error(bad_format).
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});

/// Reads and parses a file. Throws Error(not_found | io | bad_format).
Json read_json_file(const std::filesystem::path& path, const JsonLimits& limits = {});

/// The value of `key` in `object`, converted to T, or `fallback` when the key is absent or null.
/// A value of another type throws Error(bad_format) that names `where` and the key.
template <class T>
T json_value(const Json& object, const char* key, T fallback, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  try {
    return found->template get<T>();
  } catch (const Json::exception&) {
    throw Error(ErrorCode::bad_format, where,
                std::string("field \"") + key + "\" has the wrong type: " + found->dump());
  }
}

/// As json_value, but an absent key throws Error(bad_format).
template <class T>
T json_require(const Json& object, const char* key, const std::string& where) {
  if (!object.contains(key))
    throw Error(ErrorCode::bad_format, where, std::string("field \"") + key + "\" is missing");
  return json_value<T>(object, key, T{}, where);
}

}  // namespace ringlet
