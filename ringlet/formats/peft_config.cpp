#include "ringlet/formats/peft_config.h"

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns falsely inside std::regex when it is compiled with sanitizers (GCC bug 105562).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <algorithm>
#include <cmath>
#include <optional>
#include <regex>
#include <utility>
#include <vector>

#include "ringlet/formats/adapter_tensors.h"
#include "ringlet/formats/part_format.h"

namespace ringlet::formats {
namespace {

bool is_known(const std::string& value, std::vector<std::string> PeftForm::*list) {
  return std::ranges::any_of(part_formats(), [&](const PartFormat& format) {
    const std::vector<std::string>& known = format.peft.*list;
    return std::ranges::find(known, value) != known.end();
  });
}

bool is_unset(const Json& value) {
  return value.is_null() || (value.is_boolean() && !value.get<bool>()) ||
         (value.is_number() && value.get<double>() == 0.0) ||
         (value.is_string() && (value.get<std::string>().empty() || value == "none")) ||
         (value.is_structured() && value.empty());
}

/// Names of modules are expressions, too, whose dots stand for any letter.
bool is_plain(const std::string& key) {
  return std::ranges::all_of(key, [](char c) {
    return c == '.' || c == '_' || c == '-' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
           (c >= 'A' && c <= 'Z');
  });
}

bool plain_matches(const std::string& key, const std::string& path) {
  if (key.size() > path.size()) return false;
  const std::size_t begin = path.size() - key.size();
  return (begin == 0 || path[begin - 1] == '.') &&
         std::equal(key.begin(), key.end(), path.begin() + static_cast<std::ptrdiff_t>(begin),
                    [](char a, char b) { return a == b || a == '.'; });
}

/// How often an expression's repeat counts write out what they repeat, or nothing for counts that
/// are not understood.
std::optional<std::int64_t> written_out(const std::string& key) {
  static const std::regex kCount(R"(\{(\d{1,4})(,(\d{0,4}))?\})");
  std::int64_t times = 1;
  constexpr std::int64_t kEnough = 1'000'000;
  for (std::size_t i = 0; i < key.size(); ++i) {
    if (key[i] == '\\') {
      ++i;
      continue;
    }
    if (key[i] != '{') continue;
    std::smatch count;
    if (!std::regex_search(key.begin() + static_cast<std::ptrdiff_t>(i), key.end(), count, kCount,
                           std::regex_constants::match_continuous))
      return std::nullopt;
    const auto most = std::max(std::stoll(count[1]),
                               count[3].length() > 0 ? std::stoll(count[3]) : std::int64_t{1});
    times = std::min(kEnough, times * std::max<std::int64_t>(most, 1));
  }
  return times;
}

/// Refuses what makes matching slow whatever the way: an expression that is written out many times,
/// and one that is tried at every letter.
void check_expression(const std::string& key, const std::string& where) {
  constexpr std::size_t kLongest = 256;
  constexpr std::int64_t kMostTimes = 64;
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::unsupported, where,
                "the regular expression \"" + shown(key) + "\" " + why,
                "name the layers in full instead");
  };
  if (key.size() > kLongest) refuse("is longer than " + std::to_string(kLongest) + " characters");
  const std::optional<std::int64_t> times = written_out(key);
  if (!times || *times > kMostTimes)
    refuse("has repeat counts above " + std::to_string(kMostTimes) + ", which are unsupported");
  for (std::size_t i = 0; i < key.size(); ++i) {
    if (key[i] == '\\') {
      ++i;
      continue;
    }
    if (key.compare(i, 2, "(?") == 0 && key.compare(i, 3, "(?:") != 0)
      refuse("uses lookahead or another extension, which is unsupported");
  }
}

/// Whether the whole path is what `key` describes between the two other texts.
bool expression_matches(const std::string& key, const std::string& before, const std::string& after,
                        const std::string& path, const std::string& where) {
  check_expression(key, where);
  auto flags = std::regex::ECMAScript;
#ifdef __GLIBCXX__
  flags |= std::regex_constants::__polynomial;  // no backtracking, which may take 2^n steps
#endif
  try {
    return std::regex_match(path, std::regex(before + key + after, flags));
  } catch (const std::regex_error& problem) {
    throw Error(ErrorCode::bad_format, where,
                "\"" + shown(key) + "\" is not a regular expression: " + problem.what());
  }
}

/// PEFT's rule: the key as a regular expression for the end of the path.
bool matches(const std::string& key, const std::string& path, const std::string& where) {
  if (is_plain(key)) return plain_matches(key, path);
  return expression_matches(key, "(.*\\.)?(", ")$", path, where);
}

}  // namespace

OrderedJson parse_ordered_json(const std::string& text, const std::string& where) {
  static_cast<void>(parse_json(text, where));  // throws for what the other parser lets pass
  return OrderedJson::parse(text);
}

PeftConfig::PeftConfig(const OrderedJson& config, std::string where)
    : config_(config), where_(std::move(where)) {
  if (!config_.is_object()) throw Error(ErrorCode::bad_format, where_, "is not a JSON object");
  type_ = json_value<std::string>(config_, "peft_type", "LORA", where_);
  if (!is_known(type_, &PeftForm::types))
    throw Error(ErrorCode::unsupported, where_,
                "PEFT's method \"" + shown(type_) + "\" is unsupported",
                "merge the adapter with PEFT and use the merged model");
  for (const auto& [field, value] : config_.items())
    if (!is_known(field, &PeftForm::fields) && !is_unset(value))
      throw Error(ErrorCode::unsupported, where_,
                  "field \"" + shown(field) + "\" is set to " + shown(value.dump()) +
                      ", which may change what the adapter computes and is unsupported",
                  "merge the adapter with PEFT and use the merged model");
  for (const char* field : {"rank_pattern", "alpha_pattern"})
    if (config.contains(field)) patterns_[field] = config[field];
}

bool PeftConfig::flag(const char* field, bool fallback) const {
  return json_value<bool>(config_, field, fallback, where_);
}

std::int64_t PeftConfig::integer(const char* field, std::int64_t fallback) const {
  return json_value<std::int64_t>(config_, field, fallback, where_);
}

double PeftConfig::number(const char* field, double fallback) const {
  return json_value<double>(config_, field, fallback, where_);
}

bool PeftConfig::is_set(const char* field) const {
  const auto found = config_.find(field);
  return found != config_.end() && !is_unset(*found);
}

std::string PeftConfig::word(const char* field, const std::string& fallback) const {
  const auto found = config_.find(field);
  if (found == config_.end() || !found->is_string()) return fallback;
  return found->get<std::string>();
}

double PeftConfig::for_layer(const char* pattern_field, const std::string& path,
                             double fallback) const {
  const auto patterns = patterns_.find(pattern_field);
  if (patterns == patterns_.end() || patterns->is_null()) return fallback;
  if (!patterns->is_object())
    throw Error(ErrorCode::bad_format, where_,
                std::string(pattern_field) + " is not a JSON object");
  constexpr int kMostExpressions = 64;
  int expressions = 0;
  for (const auto& [key, value] : patterns->items()) {
    if (!value.is_number())
      throw Error(ErrorCode::bad_format, where_,
                  std::string(pattern_field) + ": \"" + shown(key) + "\" is not a number");
    if (!is_plain(key) && ++expressions > kMostExpressions)
      throw Error(ErrorCode::unsupported, where_,
                  std::string(pattern_field) + " has more than " +
                      std::to_string(kMostExpressions) + " regular expressions",
                  "name the layers in full instead");
    if (matches(key, path, where_)) return value.get<double>();
  }
  return fallback;
}

std::int64_t PeftConfig::rank(const std::string& path, std::int64_t fallback) const {
  constexpr double kMost = 4294967296.0;
  const double stated =
      for_layer("rank_pattern", path, static_cast<double>(integer("r", fallback)));
  if (!(std::abs(stated) <= kMost) || stated != std::floor(stated))
    throw Error(ErrorCode::bad_format, where_, "states a rank that is not a whole number");
  return static_cast<std::int64_t>(stated);
}

bool PeftConfig::selects(const char* field, const std::string& path) const {
  const auto found = config_.find(field);
  if (found == config_.end() || found->is_null()) return false;
  if (found->is_string())
    return expression_matches(found->get<std::string>(), "(?:", ")", path, where_);
  const auto names = json_value<std::vector<std::string>>(config_, field, {}, where_);
  return std::ranges::any_of(names, [&](const std::string& name) { return path.ends_with(name); });
}

}  // namespace ringlet::formats
