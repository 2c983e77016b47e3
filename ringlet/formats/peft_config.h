// PEFT's adapter_config.json: the fields that change the mathematics.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "ringlet/core/json.h"

namespace ringlet::formats {

/// JSON whose objects keep the order of the text: the first pattern that fits a layer counts.
using OrderedJson = nlohmann::ordered_json;

/// Parses as strictly as parse_json. Throws Error(bad_format).
OrderedJson parse_ordered_json(const std::string& text, const std::string& where);

/// A configuration with the rules of its fields.
class PeftConfig {
 public:
  /// Throws Error(unsupported) for a field that is unknown and set: it could change what the
  /// adapter computes; and for known fields that ringlet cannot follow.
  PeftConfig(const OrderedJson& config, std::string where);

  const std::string& type() const { return type_; }  ///< "LORA", "OFT", …
  bool is_set(const char* field) const;  ///< there, and none of null, false, 0, "none" and empty
  bool flag(const char* field, bool fallback = false) const;
  std::int64_t integer(const char* field, std::int64_t fallback) const;
  double number(const char* field, double fallback) const;
  std::string word(const char* field, const std::string& fallback) const;

  /// The value for a layer: that of the first key of `pattern_field`, in the file's order, that the
  /// layer's path (as PEFT's network has it) ends with or matches as a regular expression, else
  /// `fallback` (PEFT's get_pattern_key). Throws Error(unsupported) for expressions whose matching
  /// could take long.
  double for_layer(const char* pattern_field, const std::string& path, double fallback) const;

  /// The rank that `r` and `rank_pattern` state for a layer, else `fallback`.
  std::int64_t rank(const std::string& path, std::int64_t fallback) const;

  /// Whether a list of endings, or a regular expression for the whole path, selects the layer
  /// (IA3's feedforward_modules).
  bool selects(const char* field, const std::string& path) const;

  const std::string& where() const { return where_; }

 private:
  Json config_;
  OrderedJson patterns_;  ///< rank_pattern and alpha_pattern
  std::string where_;
  std::string type_;
};

}  // namespace ringlet::formats
