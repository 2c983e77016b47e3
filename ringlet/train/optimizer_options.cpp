#include "ringlet/train/optimizer_options.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <sstream>
#include <type_traits>
#include <variant>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::train {
namespace {

[[noreturn]] void refuse(const std::string& what, const std::string& hint = {}) {
  throw Error(ErrorCode::invalid_argument, Field("optimizer_options"), what, hint);
}

std::optional<bool> read_flag(const std::string& text) {
  for (const char* word : {"yes", "true", "True", "on", "1"})
    if (text == word) return true;
  for (const char* word : {"no", "false", "False", "off", "0"})
    if (text == word) return false;
  return std::nullopt;
}

/// Sets an option's value from its text.
struct Assign {
  const Option& option;
  const std::string& text;

  void operator()(bool* value) const {
    const std::optional<bool> flag = read_flag(text);
    if (!flag) refuse(option.field + "=" + text + ": it is yes or no");
    *value = *flag;
  }
  template <class Value>
  void operator()(Value* value) const {
    if constexpr (std::is_arithmetic_v<Value>) {
      const std::optional<double> number = read_number(text);
      if (!number) refuse(option.field + "=" + text + ": it is a number");
      if (!option.range.contains(*number)) refuse(option.field + " " + option.range.refusal());
      if constexpr (std::is_integral_v<Value>)
        if (*number != std::floor(*number)) refuse(option.field + " is a whole number");
      *value = static_cast<Value>(*number);
    } else {
      refuse(option.field + " cannot be set here");
    }
  }
  template <class Value>
  void operator()(std::optional<Value>* value) const {
    if constexpr (std::is_same_v<Value, bool> || std::is_arithmetic_v<Value>) {
      Value read{};
      (*this)(&read);
      *value = read;
    } else {
      refuse(option.field + " cannot be set here");
    }
  }
  void operator()(const WrittenValue& value) const { value.read({text}); }
};

void read_one(OptionList& list, const std::string& pair, const std::string& optimizer) {
  const std::size_t middle = pair.find('=');
  if (middle == std::string::npos)
    refuse("\"" + pair + "\" cannot be read", "write it as KEY=VALUE,KEY=VALUE");
  const std::string key = pair.substr(0, middle), text = pair.substr(middle + 1);
  std::vector<std::string> keys;
  for (const Option& option : list.all()) keys.push_back(option.field);
  const auto found = std::ranges::find(keys, key);
  if (found == keys.end()) {
    if (key == "betas" || key == "weight_decay")
      refuse("\"" + key + "\" is an option of its own", "give `" + key + "`");
    const std::string near = nearest_name(key, keys);
    refuse(optimizer + " has no \"" + key + "\"", keys.empty() ? "it has no options of its own"
                                                  : near.empty()
                                                      ? "it has " + join(keys)
                                                      : "did you mean \"" + near + "\"?");
  }
  const Option& option = list.at(key);
  std::visit(Assign{option, text}, option.target);
}

}  // namespace

void read_optimizer_options(OptionList& list, const std::vector<std::string>& texts,
                            const std::string& optimizer) {
  for (const std::string& text : texts) {
    std::istringstream pairs(text);
    for (std::string pair; std::getline(pairs, pair, ',');)
      if (!pair.empty()) read_one(list, pair, optimizer);
  }
}

WrittenValue optional_flag(std::optional<bool>& value) {
  const auto read = [&value](const std::vector<std::string>& texts) {
    value = read_flag(texts.back());
    if (!value) refuse("\"" + texts.back() + "\": it is yes or no");
  };
  return {.read = read,
          .value = [&value] { return value ? Json(*value) : Json(); },
          .shown = [] { return std::string(); }};
}

}  // namespace ringlet::train
