// One description per option: its name, where its value lives, what it takes, and what it means.
// The command line, configuration files, range checks, the settings that a resumed run must repeat
// and the reference of all options are made from it.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ringlet/core/json.h"

namespace ringlet {

/// The numbers that an option takes: from `low` to `high`, either end with or without itself.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool without_low = false, without_high = false;

  static Range at_least(double low) { return {.low = low}; }
  static Range above(double low);  ///< finite numbers
  static Range between(double low, double high) { return {.low = low, .high = high}; }
  static Range inside(double low, double high);  ///< without either end
  static Range share() { return {.low = 0.0, .high = 1.0, .without_high = true}; }

  bool unlimited() const;
  bool contains(double number) const;  ///< false for a NaN
  std::string text() const;            ///< "1 to 1000", "above 0", "[0, 1)"; "" when unlimited
  std::string refusal() const;         ///< "must lie between 1 and 1000"
};

/// A value that is written in words: a choice, a pair of numbers, a table.
struct WrittenValue {
  /// Takes what was given, one text for each time. Throws Error(invalid_argument).
  std::function<void(const std::vector<std::string>&)> read;
  std::function<Json()> value;          ///< names and numbers, never the number of an enumerator
  std::function<std::string()> shown;   ///< the present value as one would write it; may be empty
  bool repeatable = false;              ///< may be given several times
  std::vector<std::string> words = {};  ///< the usual ones where they are few; empty = any text
  std::string placeholder = "TEXT";     ///< for one of any text in the reference: "N" for numbers
  /// For values that C++ can set to what read() refuses; may be empty. Throws as read().
  std::function<void()> check = {};
};

using OptionTarget =
    std::variant<bool*, int*, std::int64_t*, std::uint64_t*, double*, std::string*,
                 std::filesystem::path*, std::vector<std::string>*, std::optional<std::int64_t>*,
                 std::optional<std::uint64_t>*, std::optional<double>*, std::optional<std::string>*,
                 WrittenValue>;

struct Option {
  std::string field;  ///< "learning_rate"; see Field for how programs spell it
  OptionTarget target;
  std::string help;       ///< names other options as messages do: between back quotes
  std::string otherwise;  ///< what holds when it is not given and that is no constant
  std::string group;      ///< a title; "" = none
  Range range;
  bool is_required = false;
  bool is_positional = false;  ///< stands without its name
  std::string setting;         ///< key in a run's settings; "" = a resumed run need not repeat it

  Option& required();
  Option& positional();
  Option& within(Range numbers);
  Option& or_else(std::string words);
  /// A resumed run must repeat it. `key`: its name in the settings; "" = the field, with spaces.
  Option& repeated(std::string key = {});

  Json value() const;  ///< null for an optional one that is not there
  /// Throws Error(invalid_argument) at the field for a number out of range or an unknown word.
  void check() const;
};

/// The options of a verb, or of a struct. Holds pointers to the values: these must outlive it.
class OptionList {
 public:
  template <class Target>
  Option& add(std::string field, Target& value, std::string help) {
    return append(std::move(field), OptionTarget(&value), std::move(help));
  }
  Option& add(std::string field, WrittenValue value, std::string help);

  /// Options that `fill` adds stand under a title.
  void in_group(const std::string& title, const std::function<void()>& fill);

  /// Takes the options of a title out of the list. References that add() has given end.
  void remove_group(const std::string& title);

  const std::deque<Option>& all() const { return options_; }

  /// The option of a field, which must be there.
  Option& at(const std::string& field);

  /// Throws as Option::check for the first that is out of range.
  void check() const;
  /// The values that a resumed run must repeat, by their keys.
  Json settings() const;
  /// All values by field.
  Json values() const;

 private:
  Option& append(std::string field, OptionTarget target, std::string help);

  std::deque<Option> options_;  // references stay valid until remove_group
  std::string group_;
};

/// A choice among names. `names`: rows of {name, value} that live as long; of several names of one
/// value the first is the one that is written. An unknown name is Error(invalid_argument) at
/// `field` that lists them and says which is nearest; so is, at check(), a value without a name.
template <class Value, class Names>
WrittenValue choice(const std::string& field, Value& value, const Names& names);

/// The same for a value that need not be there: "" reads as none, and none is written as null.
template <class Value, class Names>
WrittenValue choice(const std::string& field, std::optional<Value>& value, const Names& names);

/// Bytes, written as "8G" (read_bytes); "" stands for 0, which is no limit. Other texts are
/// Error(invalid_argument).
WrittenValue byte_size(std::string field, std::uint64_t& bytes);

/// A choice whose value is the word itself; "" stays allowed.
WrittenValue word_choice(std::string field, std::string& value, std::vector<std::string> words);

/// "a, b or c".
std::string one_of(const std::vector<std::string>& words);

/// Throws Error(invalid_argument) at the field that lists the words and says which is nearest.
[[noreturn]] void refuse_choice(const std::string& field, const std::string& word,
                                const std::vector<std::string>& known);
/// The same for a value that C++ has set and that has no name.
[[noreturn]] void refuse_choice(const std::string& field, const std::vector<std::string>& known);

namespace detail {

/// The names that are written, one per value.
template <class Names>
std::vector<std::string> written_names(const Names& names) {
  std::vector<std::string> words;
  for (auto row = names.begin(); row != names.end(); ++row) {
    bool first = true;
    for (auto before = names.begin(); before != row; ++before)
      first = first && before->second != row->second;
    if (first) words.emplace_back(row->first);
  }
  return words;
}

template <class Names>
auto value_named(const std::string& field, const std::string& word, const Names& names) {
  for (const auto& [name, meant] : names)
    if (word == name) return meant;
  refuse_choice(field, word, written_names(names));
}

template <class Value, class Names>
void check_named(const std::string& field, const Value& value, const Names& names) {
  for (const auto& row : names)
    if (row.second == value) return;
  refuse_choice(field, written_names(names));
}

template <class Value, class Names>
std::string name_of(const Value& value, const Names& names) {
  for (const auto& [name, meant] : names)
    if (meant == value) return std::string(name);
  return "";
}

}  // namespace detail

template <class Value, class Names>
WrittenValue choice(const std::string& field, Value& value, const Names& names) {
  const auto shown = [&value, &names] { return detail::name_of(value, names); };
  return {
      .read = [field, &value, &names](
                  const auto& texts) { value = detail::value_named(field, texts.back(), names); },
      .value = [shown] { return Json(shown()); },
      .shown = shown,
      .words = detail::written_names(names),
      .check = [field, &value, &names] { detail::check_named(field, value, names); }};
}

template <class Value, class Names>
WrittenValue choice(const std::string& field, std::optional<Value>& value, const Names& names) {
  const auto shown = [&value, &names] { return value ? detail::name_of(*value, names) : ""; };
  return {.read =
              [field, &value, &names](const auto& texts) {
                value.reset();
                if (!texts.back().empty()) value = detail::value_named(field, texts.back(), names);
              },
          .value = [&value, shown] { return value ? Json(shown()) : Json(); },
          .shown = shown,
          .words = detail::written_names(names),
          .check =
              [field, &value, &names] {
                if (value) detail::check_named(field, *value, names);
              }};
}

}  // namespace ringlet
