// Strict JSON: the only way JSON enters ringlet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

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

namespace detail {

/// True when `value` is a T as it stands: nlohmann would silently turn 1.5 into 1, true into 1 and
/// 2^63 into a negative number.
template <class T>
bool holds(const Json& value, const T*) {
  if constexpr (std::is_same_v<T, bool>) {
    return value.is_boolean();
  } else if constexpr (std::is_integral_v<T>) {
    if (value.is_number_unsigned()) return std::in_range<T>(value.get<std::uint64_t>());
    return value.is_number_integer() && std::in_range<T>(value.get<std::int64_t>());
  } else if constexpr (std::is_floating_point_v<T>) {
    return value.is_number();
  } else {
    return true;  // nlohmann checks the other types itself
  }
}

template <class T>
bool holds(const Json& value, const std::vector<T>*) {
  if (!value.is_array()) return false;
  for (const Json& element : value)
    if (!holds(element, static_cast<const T*>(nullptr))) return false;
  return true;
}

}  // namespace detail

/// The value of `key` in `object` as a T, or `fallback` when the key is absent or null.
/// A value of another type throws Error(bad_format) that names `where` and the key.
template <class T>
T json_value(const Json& object, const char* key, T fallback, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  const auto wrong_type = [&] {
    return Error(ErrorCode::bad_format, where,
                 std::string("field \"") + key + "\" has the wrong type: " + found->dump());
  };
  if (!detail::holds(*found, static_cast<const T*>(nullptr))) throw wrong_type();
  try {
    return found->template get<T>();
  } catch (const Json::exception&) {
    throw wrong_type();
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
