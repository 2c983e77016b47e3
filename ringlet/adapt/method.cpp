#include "ringlet/adapt/method.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ringlet/adapt/registry.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::adapt {
namespace {

[[noreturn]] void invalid_part(const std::string& what, const std::string& hint) {
  throw Error(ErrorCode::invalid_argument, Field("method"), what, hint);
}

bool is_fraction(OptionKind kind) {
  return kind == OptionKind::number || kind == OptionKind::non_negative;
}

/// The largest whole number of a kind.
double largest(OptionKind kind) {
  constexpr double kLargestCount = 9007199254740992.0;  // 2^53: all below are exact as a double
  const bool size = kind == OptionKind::positive_integer || kind == OptionKind::integer;
  return size ? static_cast<double>(kLargestSize) : kLargestCount;
}

/// The number as the kind stores it, where it is in the kind's range.
OptionValue checked_number(const std::string& part, const OptionEntry& option, double number) {
  const OptionKind kind = option.kind;
  const bool zero = kind == OptionKind::whole || kind == OptionKind::non_negative;
  const bool fits = std::isfinite(number) &&
                    (kind == OptionKind::integer || number > 0.0 || (zero && number == 0.0)) &&
                    (is_fraction(kind) || std::abs(number) <= largest(kind));
  if (!fits) throw wrong_number(part, option, exact_number(number));
  if (is_fraction(kind)) return number;
  if (number != std::floor(number))
    invalid_part(part + "(" + option.name + "=" + exact_number(number) + ") must be a whole number",
                 "for example " + part + "(" + option.name + "=4)");
  return static_cast<std::int64_t>(number);
}

OptionValue checked_value(const std::string& part, const OptionEntry& option, OptionValue value) {
  if (option.kind == OptionKind::word) {
    const std::string* const word = std::get_if<std::string>(&value);
    if (word == nullptr || std::ranges::find(option.words, *word) == option.words.end())
      invalid_part(
          part + "(" + option.name + "=" + (word == nullptr ? "…" : *word) + ") is not known",
          "known: " + join(option.words));
    return value;
  }
  if (option.kind == OptionKind::split) {
    if (!std::holds_alternative<Factors>(value))
      invalid_part(part + "(" + option.name + "=…) must be factors", "for example 8x40");
    return value;
  }
  if (const auto* const whole = std::get_if<std::int64_t>(&value))
    return checked_number(part, option, static_cast<double>(*whole));
  if (const auto* const number = std::get_if<double>(&value))
    return checked_number(part, option, *number);
  throw wrong_number(part, option, "…");
}

}  // namespace

Error wrong_number(const std::string& part, const OptionEntry& option, const std::string& shown) {
  const bool below = option.kind == OptionKind::integer;
  const bool zero = option.kind == OptionKind::whole || option.kind == OptionKind::non_negative;
  return {ErrorCode::invalid_argument, Field("method"),
          part + "(" + option.name + "=" + shown + ") must be a number" +
              (below  ? ""
               : zero ? ", 0 or above"
                      : " above 0"),
          "for example " + part + "(" + option.name + "=4)"};
}

std::int64_t PartSpec::integer(const std::string& key) const {
  return std::get<std::int64_t>(options.at(key));
}

double PartSpec::number(const std::string& key) const {
  const OptionValue& value = options.at(key);
  if (const auto* const whole = std::get_if<std::int64_t>(&value))
    return static_cast<double>(*whole);
  return std::get<double>(value);
}

const std::string& PartSpec::word(const std::string& key) const {
  return std::get<std::string>(options.at(key));
}

const Factors& PartSpec::factors(const std::string& key) const {
  return std::get<Factors>(options.at(key));
}

PartSpec make_part(const std::string& name, Options options) {
  const PartEntry& entry = find_part(name);
  PartSpec part{name, {}};
  for (auto& [key, value] : options) {
    const OptionEntry* const option = entry.option(key);
    if (option == nullptr) {
      std::vector<std::string> names;
      for (const OptionEntry& known : entry.options) names.push_back(known.name);
      invalid_part(name + " has no option \"" + key + "\"", "known: " + join(names));
    }
    part.options.emplace(key, checked_value(name, *option, std::move(value)));
    part.given.insert(key);
  }
  for (const OptionEntry& option : entry.options)
    if (!part.has(option.name))
      part.options.emplace(option.name,
                           checked_value(name, option, default_value(option, part.options)));
  return part;
}

PartSpec with_size(const PartSpec& part, const std::string& option, std::int64_t size) {
  const PartEntry& entry = find_part(part.name);
  PartSpec resized = part;
  for (const OptionEntry& other : entry.options)
    if (other.same_as == option && part.number(other.name) == part.number(option))
      resized.options[other.name] = checked_value(part.name, other, static_cast<double>(size));
  resized.options[option] = checked_value(part.name, *entry.option(option), size);
  resized.given.insert(option);
  return resized;
}

Method make_method(std::vector<PartSpec> parts) {
  constexpr std::size_t kMostParts = 16;
  if (parts.empty()) invalid_part("the method has no part", "name one, for example lora");
  if (parts.size() > kMostParts) invalid_part("the method has more than 16 parts", "write fewer");
  for (const auto& [kind, words] :
       {std::pair{PartKind::residual, "residuals"}, std::pair{PartKind::magnitude, "magnitudes"},
        std::pair{PartKind::bias, "biases"}}) {
    std::vector<std::string> names;
    for (const PartSpec& part : parts)
      if (find_part(part.name).kind == kind) names.push_back(part.name);
    if (names.size() > 1)
      invalid_part("\"" + join(names, "+") + "\" has two " + words,
                   "combine transforms with one residual, for example trm(rank=2)+lora(rank=4)");
  }
  return {std::move(parts)};
}

Method tlora() {
  Method method = make_method({make_part("trm", {{"rank", 2}}), make_part("tr", {{"rank", 6}})});
  for (PartSpec& part : method.parts) part.given.clear();
  return method;
}

}  // namespace ringlet::adapt
