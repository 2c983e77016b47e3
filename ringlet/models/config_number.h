// Numbers of networks' configurations.
#pragma once

#include <cstdint>
#include <string>

#include "ringlet/core/json.h"

namespace ringlet::models {

/// A whole number above zero, as widths and counts are. Throws Error(bad_format) for any other, and
/// as json_value.
inline std::int64_t positive_number(const Json& config, const char* key, std::int64_t fallback,
                                    const std::string& where) {
  const auto value = json_value(config, key, fallback, where);
  if (value <= 0) throw Error(ErrorCode::bad_format, where, std::string(key) + " must be positive");
  return value;
}

}  // namespace ringlet::models
