#include "option_binding.h"

#include <algorithm>
#include <limits>
#include <sstream>
#include <type_traits>
#include <vector>

#include "option_words.h"
#include "options.h"
#include "ringlet/core/text.h"

namespace ringlet::app {
namespace {

std::string name_of(const Option& option) {
  return option.is_positional ? option.field : option_of(option.field);
}

/// What it takes, where that is a range or one of a few words; "" otherwise.
std::string taken_by(const Option& option) {
  const auto* written = std::get_if<WrittenValue>(&option.target);
  return written != nullptr && !written->words.empty() ? one_of(written->words)
                                                       : option.range.text();
}

std::string help_of(const Option& option) {
  const bool bounded = option.range.high < std::numeric_limits<double>::max();
  const std::string taken = taken_by(option);
  const bool shown = !taken.empty() && (option.range.unlimited() || bounded);
  return with_options(option.help) + (shown ? " (" + taken + ")" : "") +
         (option.otherwise.empty() ? "" : " [" + with_options(option.otherwise) + "]");
}

/// Adds one option to CLI11, in the way of its value's type.
class Binder {
 public:
  Binder(CLI::App& app, const Option& option) : app_(app), option_(option) {}

  CLI::Option* operator()(bool* value) const {
    return app_.add_flag(name_of(option_), *value, help_of(option_));
  }
  template <class Value>
  CLI::Option* operator()(Value* value) const {
    CLI::Option* added = app_.add_option(name_of(option_), *value, help_of(option_));
    if constexpr (std::is_same_v<Value, std::uint64_t> ||
                  std::is_same_v<Value, std::optional<std::uint64_t>>)
      added->transform(whole_number());
    bool shown = option_.otherwise.empty() && std::is_arithmetic_v<Value>;
    if constexpr (std::is_same_v<Value, std::string>) shown = !value->empty();
    return shown ? added->capture_default_str() : added;
  }
  CLI::Option* operator()(std::vector<std::string>* value) const {
    CLI::Option* added = app_.add_option(name_of(option_), *value, help_of(option_));
    if (!option_.is_positional) repeatable(added);
    return added;
  }
  CLI::Option* operator()(std::filesystem::path* value) const {
    CLI::Option* added = app_.add_option_function<std::string>(
        name_of(option_), [value](const std::string& text) { *value = text; }, help_of(option_));
    return value->empty() ? added : added->default_str(value->string());
  }
  CLI::Option* operator()(const WrittenValue& value) const {
    CLI::Option* added = app_.add_option_function<std::vector<std::string>>(
        name_of(option_), value.read, help_of(option_));
    if (value.repeatable)
      repeatable(added);
    else
      added->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::Throw);
    const std::string shown = option_.otherwise.empty() ? value.shown() : "";
    return shown.empty() ? added : added->default_str(shown);
  }

 private:
  CLI::App& app_;
  const Option& option_;
};

/// What stands behind an option's name in the reference.
struct Placeholder {
  std::string operator()(bool*) const { return ""; }
  template <class Value>
  std::string operator()(Value*) const {
    if constexpr (std::is_integral_v<Value>) return " N";
    if constexpr (std::is_floating_point_v<Value>) return " X";
    return " TEXT";
  }
  template <class Value>
  std::string operator()(std::optional<Value>* value) const {
    return (*this)(value->has_value() ? &**value : static_cast<Value*>(nullptr));
  }
  std::string operator()(const WrittenValue& value) const {
    return " " + (value.words.empty() ? value.placeholder : "WORD");
  }
};

/// The constant that holds when the option is not given; "" where there is none.
std::string default_of(const Option& option) {
  if (option.is_required) return "";
  if (!option.otherwise.empty()) return with_options(option.otherwise);
  const auto* written = std::get_if<WrittenValue>(&option.target);
  if (written != nullptr) return written->shown();
  const Json value = option.value();
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return exact_number(value.get<double>());
  return value.is_number() ? value.dump() : "";
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '*' || c == '_' || c == '<' || c == '`') out += '\\';
    out += c;
  }
  return out;
}

/// Words in lines of at most 100 columns; the first begins with `lead`, the others with `indent`.
std::string wrapped(const std::string& text, const std::string& lead, const std::string& indent) {
  constexpr std::size_t kColumns = 100;
  std::istringstream words(text);
  std::string out, line = lead;
  bool empty = true;
  for (std::string word; words >> word;) {
    if (!empty && line.size() + 1 + word.size() > kColumns) {
      out += line + "\n";
      line = indent;
      empty = true;
    }
    line += (empty ? "" : " ") + word;
    empty = false;
  }
  return out + line + "\n";
}

std::string item(const Option& option) {
  const std::string value = std::visit(Placeholder{}, option.target);
  const std::string name = option.is_positional ? option.field : option_of(option.field) + value;
  std::vector<std::string> facts;
  if (option.is_required) facts.emplace_back("required");
  if (const std::string taken = taken_by(option); !taken.empty()) facts.push_back(taken);
  if (const std::string usual = default_of(option); !usual.empty())
    facts.push_back("default: " + escaped(usual));
  if (!option.setting.empty()) facts.emplace_back("a resumed run repeats it");
  return wrapped("`" + name + "`" + (facts.empty() ? "" : " (" + join(facts, "; ") + ")") + ": " +
                     escaped(with_options(option.help)),
                 "- ", "  ");
}

/// Sentences as paragraphs; lines that begin with spaces are commands.
std::string description(const std::string& text) {
  std::istringstream lines(text);
  std::string out;
  bool in_commands = false;
  for (std::string line; std::getline(lines, line);) {
    const bool command = line.starts_with("  ");
    if (command != in_commands) out += command ? "\n```sh\n" : "```\n\n";
    out += command ? line.substr(2) + "\n" : wrapped(escaped(line), "", "");
    in_commands = command;
  }
  return out + (in_commands ? "```\n" : "");
}

}  // namespace

void bind(CLI::App& app, const OptionList& options) {
  const bool words_follow = std::ranges::any_of(options.all(), [](const Option& option) {
    return option.is_positional && std::holds_alternative<std::vector<std::string>*>(option.target);
  });
  for (const Option& option : options.all()) {
    CLI::Option* added = std::visit(Binder(app, option), option.target);
    if (option.is_required) added->required()->default_str("");  // what it holds is never used
    if (!option.group.empty()) added->group(option.group);
    // What follows an option's one value would else be taken for a second.
    if (words_follow && !option.is_positional) added->allow_extra_args(false);
  }
}

std::string reference(const OptionList& options) {
  std::string out, group;
  for (const Option& option : options.all()) {
    if (option.group != group) out += "\n### " + option.group + "\n\n";
    group = option.group;
    out += item(option);
  }
  return out;
}

std::string reference(const CLI::App& app, const OptionList& options) {
  std::string out =
      "\n## ringlet " + app.get_name() + "\n\n" + description(app.get_description()) + "\n";
  OptionList own = options;
  own.remove_group(kCommonOptions);
  return out + reference(own);
}

}  // namespace ringlet::app
