// PEFT's adapter_config.json: the fields that change the mathematics.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "ringlet/core/json.h"

namespace ringlet::formats {

/// A configuration with the rules of its fields.
class PeftConfig {
 public:
  /// Throws Error(unsupported) for a field that is unknown and set: it could change what the
  /// adapter computes; and for known fields that ringlet cannot follow.
  PeftConfig(Json config, std::string where);

  const std::string& type() const { return type_; }  ///< "LORA", "OFT", …
  bool flag(const char* field, bool fallback = false) const;
  std::int64_t integer(const char* field, std::int64_t fallback) const;
  double number(const char* field, double fallback) const;
  std::string word(const char* field, const std::string& fallback) const;

  /// The value for a layer: that of the first key of `pattern_field` that the layer's path ends
  /// with or matches as a regular expression, else `fallback`. Throws Error(unsupported) for
  /// expressions whose matching could take long.
  double for_layer(const char* pattern_field, const std::string& path, double fallback) const;

  /// The rank that `r` and `rank_pattern` state for a layer, else `fallback`.
  std::int64_t rank(const std::string& path, std::int64_t fallback) const;

  /// Whether a list of names, or a regular expression, selects the layer (IA3's
  /// feedforward_modules).
  bool selects(const char* field, const std::string& path) const;

  const std::string& where() const { return where_; }

 private:
  Json config_;
  std::string where_;
  std::string type_;
};

}  // namespace ringlet::formats
