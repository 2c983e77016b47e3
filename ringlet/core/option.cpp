#include "ringlet/core/option.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <span>
#include <type_traits>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet {
namespace {

std::string short_form(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", number);
  return text;
}

/// The number that an option holds; nothing where it holds none.
struct NumberOf {
  template <class Value>
  std::optional<double> operator()(Value* value) const {
    if constexpr (std::is_same_v<Value, bool>)
      return std::nullopt;
    else if constexpr (std::is_arithmetic_v<Value>)
      return static_cast<double>(*value);
    else
      return std::nullopt;
  }
  template <class Value>
  std::optional<double> operator()(std::optional<Value>* value) const {
    return *value ? (*this)(&**value) : std::nullopt;
  }
  std::optional<double> operator()(const WrittenValue&) const { return std::nullopt; }
};

struct JsonOf {
  template <class Value>
  Json operator()(Value* value) const {
    return *value;
  }
  template <class Value>
  Json operator()(std::optional<Value>* value) const {
    return *value ? Json(**value) : Json();
  }
  Json operator()(std::filesystem::path* value) const { return value->generic_string(); }
  Json operator()(const WrittenValue& value) const { return value.value(); }
};

}  // namespace

Range Range::above(double low) {
  return {.low = low, .high = std::numeric_limits<double>::max(), .without_low = true};
}

Range Range::inside(double low, double high) {
  return {.low = low, .high = high, .without_low = true, .without_high = true};
}

bool Range::unlimited() const { return std::isinf(low) && std::isinf(high); }

bool Range::contains(double number) const {
  const bool above = without_low ? number > low : number >= low;
  return above && (without_high ? number < high : number <= high);
}

std::string Range::text() const {
  if (unlimited()) return "";
  if (high >= std::numeric_limits<double>::max())
    return (without_low ? "above " : "at least ") + short_form(low);
  if (without_low && without_high) return "between " + short_form(low) + " and " + short_form(high);
  if (without_low || without_high)
    return (without_low ? "(" : "[") + short_form(low) + ", " + short_form(high) +
           (without_high ? ")" : "]");
  return short_form(low) + " to " + short_form(high);
}

std::string Range::refusal() const {
  if (high >= std::numeric_limits<double>::max()) {
    if (without_low) return "must be larger than " + short_form(low);
    return low == 0.0 ? "must not be negative" : "must be at least " + short_form(low);
  }
  if (without_low != without_high) return "must lie in " + text();
  return "must lie between " + short_form(low) + " and " + short_form(high);
}

Option& Option::required() {
  is_required = true;
  return *this;
}

Option& Option::positional() {
  is_positional = true;
  return *this;
}

Option& Option::within(Range numbers) {
  range = numbers;
  return *this;
}

Option& Option::or_else(std::string words) {
  otherwise = std::move(words);
  return *this;
}

Option& Option::repeated(std::string key) {
  setting = key.empty() ? field : std::move(key);
  if (setting == field) std::ranges::replace(setting, '_', ' ');
  return *this;
}

Json Option::value() const { return std::visit(JsonOf{}, target); }

void Option::check() const {
  const std::optional<double> number = std::visit(NumberOf{}, target);
  if (number && !range.unlimited() && !range.contains(*number))
    throw Error(ErrorCode::invalid_argument, Field(field), range.refusal());
  if (const auto* written = std::get_if<WrittenValue>(&target); written && written->check)
    written->check();
}

Option& OptionList::append(std::string field, OptionTarget target, std::string help) {
  Option option;
  option.field = std::move(field);
  option.target = std::move(target);
  option.help = std::move(help);
  option.group = group_;
  return options_.emplace_back(std::move(option));
}

Option& OptionList::add(std::string field, WrittenValue value, std::string help) {
  return append(std::move(field), std::move(value), std::move(help));
}

void OptionList::in_group(const std::string& title, const std::function<void()>& fill) {
  const std::string before = std::exchange(group_, title);
  fill();
  group_ = before;
}

void OptionList::remove_group(const std::string& title) {
  std::erase_if(options_, [&](const Option& option) { return option.group == title; });
}

Option& OptionList::at(const std::string& field) {
  const auto found = std::ranges::find(options_, field, &Option::field);
  if (found == options_.end())
    throw Error(ErrorCode::internal, Field(field), "there is no such option");
  return *found;
}

void OptionList::check() const {
  for (const Option& option : options_) option.check();
}

Json OptionList::settings() const {
  Json settings = Json::object();
  for (const Option& option : options_)
    if (!option.setting.empty()) settings[option.setting] = option.value();
  return settings;
}

Json OptionList::values() const {
  Json values = Json::object();
  for (const Option& option : options_) values[option.field] = option.value();
  return values;
}

WrittenValue byte_size(std::string field, std::uint64_t& bytes) {
  constexpr std::array<std::pair<const char*, int>, 4> kUnits = {
      {{"T", 40}, {"G", 30}, {"M", 20}, {"K", 10}}};
  const auto shown = [&bytes, kUnits]() -> std::string {
    if (bytes == 0) return "";
    for (const auto& [unit, power] : kUnits)
      if (bytes % (std::uint64_t{1} << power) == 0) return std::to_string(bytes >> power) + unit;
    return exact_number(std::ldexp(static_cast<double>(bytes), -10)) + "K";
  };
  const auto read = [field = std::move(field), &bytes](const std::vector<std::string>& texts) {
    bytes = 0;
    if (texts.back().empty()) return;
    const std::optional<std::uint64_t> given = read_bytes(texts.back());
    if (!given)
      throw Error(ErrorCode::invalid_argument, Field(field),
                  "\"" + texts.back() + "\" is not an amount of memory above 0",
                  "give a number with K, M, G or T, in units of 1024: 8G, 512M");
    bytes = *given;
  };
  return {.read = read,
          .value = [&bytes, shown] { return bytes == 0 ? Json() : Json(shown()); },
          .shown = shown,
          .placeholder = "SIZE"};
}

WrittenValue word_choice(std::string field, std::string& value, std::vector<std::string> words) {
  const auto check = [field = std::move(field), words](const std::string& word) {
    if (!word.empty() && std::ranges::find(words, word) == words.end())
      refuse_choice(field, word, words);
  };
  return {.read =
              [check, &value](const std::vector<std::string>& texts) {
                check(texts.back());
                value = texts.back();
              },
          .value = [&value] { return Json(value); },
          .shown = [&value] { return value; },
          .words = std::move(words),
          .check = [check, &value] { check(value); }};
}

std::string one_of(const std::vector<std::string>& words) {
  if (words.size() < 2) return join(words);
  return join(std::span(words).first(words.size() - 1)) + " or " + words.back();
}

void refuse_choice(const std::string& field, const std::string& word,
                   const std::vector<std::string>& known) {
  const std::string near = nearest_name(word, known);
  throw Error(ErrorCode::invalid_argument, Field(field), "\"" + word + "\" is not known",
              (near.empty() ? "" : "did you mean \"" + near + "\"? ") + ("use " + one_of(known)));
}

void refuse_choice(const std::string& field, const std::vector<std::string>& known) {
  throw Error(ErrorCode::invalid_argument, Field(field), "the value is not supported here",
              "use " + one_of(known));
}

}  // namespace ringlet
