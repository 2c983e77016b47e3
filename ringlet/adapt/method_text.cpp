#include "ringlet/adapt/method_text.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "ringlet/adapt/registry.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::adapt {
namespace {

[[noreturn]] void invalid_text(const std::string& what, const std::string& hint) {
  throw Error(ErrorCode::invalid_argument, Field("method"), what, hint);
}

/// A part that an alias stands for.
struct AliasPart {
  std::string name;
  Options options;
  bool takes_options = false;  ///< those that the alias is given
};

const std::map<std::string, std::vector<AliasPart>, std::less<>>& aliases() {
  static const std::map<std::string, std::vector<AliasPart>, std::less<>> table = {
      {"tlora", {{"trm", {{"rank", 2}}}, {"tr", {{"rank", 6}}}}},
      {"tlora-star", {{"trm", {{"rank", 2}}}, {"lora", {{"rank", 4}}}}},
      {"rslora", {{"lora", {{"scaling", "sqrt"}}, true}}},
      {"pissa", {{"lora", {{"init", "pissa"}}, true}}},
      {"olora", {{"lora", {{"init", "olora"}}, true}}},
      {"dora", {{"lora", {}, true}, {"magnitude", {}}}},
      {"coft", {{"oft", {{"constraint", 6e-5}}, true}}},
      {"loretta", {{"tt", {}, true}}},
      {"ia3", {{"diagonal", {}, true}}},
      {"glora", {{"lowrank", {}, true}, {"lora", {{"init", "glora"}}, true}}}};
  return table;
}

std::string text_of(const OptionValue& value) {
  struct Printer {
    std::string operator()(std::int64_t whole) const { return std::to_string(whole); }
    std::string operator()(double number) const { return exact_number(number); }
    std::string operator()(const std::string& word) const { return word; }
    std::string operator()(const Factors& factors) const { return to_string(factors); }
  };
  return std::visit(Printer(), value);
}

std::string text_of(const std::string& name, const std::vector<std::string>& options) {
  return options.empty() ? name : name + '(' + join(options, ",") + ')';
}

/// What an alias stands for, as text.
std::string text_of(const std::vector<AliasPart>& parts) {
  std::vector<std::string> texts;
  for (const AliasPart& part : parts) {
    std::vector<std::string> options;
    for (const auto& [key, value] : part.options) options.push_back(key + "=" + text_of(value));
    texts.push_back(text_of(part.name, options));
  }
  return join(texts, "+");
}

/// The options that a text has to name.
std::string text_of(const PartSpec& part) {
  std::vector<std::string> told;
  const PartEntry& entry = find_part(part.name);
  for (const auto& [key, value] : part.options) {
    const OptionEntry& option = *entry.option(key);
    if (option.always || value != default_value(option, part.options))
      told.push_back(key + "=" + text_of(value));
  }
  return text_of(part.name, told);
}

/// "lora" and "rank=4,alpha=4" of "lora(rank=4,alpha=4)".
struct Piece {
  std::string name;
  std::optional<std::string> options;  ///< none without brackets
};

/// The texts between the plus signs, without blanks. A plus inside brackets belongs to a number:
/// "lora(alpha=1e+05)+magnitude" has two parts.
std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> pieces(1);
  bool inside = false;
  for (const char c : text) {
    if (c == '(') inside = true;
    if (c == ')') inside = false;
    if (c == '+' && !inside)
      pieces.emplace_back();
    else if (c != ' ')
      pieces.back() += c;
  }
  return pieces;
}

Piece read_piece(const std::string& text) {
  const std::size_t open = std::min(text.find('('), text.size());
  Piece piece{text.substr(0, open), {}};
  if (open == text.size()) return piece;
  if (text.back() != ')')
    invalid_text("\"" + text + "\" has no closing bracket", "write name(option=value)");
  piece.options = text.substr(open + 1, text.size() - open - 2);
  return piece;
}

OptionValue read_value(const std::string& part, const OptionEntry& option,
                       const std::string& text) {
  if (option.kind == OptionKind::word) return text;
  if (option.kind == OptionKind::split) return text.empty() ? Factors() : parse_factors(text);
  const std::optional<double> number = read_number(text);
  if (!number) throw wrong_number(part, option, text);
  return *number;
}

/// "rank=4,alpha=4" as the options of a part, beside those that it has already.
void read_options(std::string_view text, const std::string& part, Options& options) {
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (item.empty()) continue;
    const std::size_t equals = item.find('=');
    if (equals == std::string_view::npos)
      invalid_text("\"" + std::string(item) + "\" in " + part + "(…) is not an option",
                   "write name=value");
    const std::string key(item.substr(0, equals)), value(item.substr(equals + 1));
    const OptionEntry* const option = find_part(part).option(key);
    // make_part names the options that there are.
    OptionValue read = option == nullptr ? OptionValue(value) : read_value(part, *option, value);
    if (!options.emplace(key, std::move(read)).second)
      invalid_text("option \"" + key + "\" of " + part + " is given twice", "give it once");
  }
}

PartSpec read_part(const std::string& name, const Piece& piece) {
  Options options;
  if (piece.options) read_options(*piece.options, name, options);
  return make_part(name, std::move(options));
}

void read_alias(const std::vector<AliasPart>& alias, const Piece& piece,
                std::vector<PartSpec>& parts) {
  if (piece.options &&
      std::ranges::none_of(alias, [](const AliasPart& part) { return part.takes_options; }))
    invalid_text("\"" + piece.name + "(" + *piece.options + ")\" is not understood",
                 piece.name + " stands for " + text_of(alias) + "; write that with your options");
  for (const AliasPart& part : alias) {
    Options options = part.options;
    if (piece.options && part.takes_options) read_options(*piece.options, part.name, options);
    PartSpec read = make_part(part.name, std::move(options));
    for (const auto& preset : part.options) read.given.erase(preset.first);
    parts.push_back(std::move(read));
  }
}

/// Refuses a name that is of no part, with the one that was meant.
[[noreturn]] void refuse_name(const std::string& name) {
  std::vector<std::string> names;
  for (const PartEntry& entry : part_registry()) names.push_back(entry.name);
  for (const std::string& alias : method_aliases()) names.push_back(alias);
  const std::string near = nearest_name(name, names);
  invalid_text("there is no method \"" + name + "\"",
               (near.empty() ? "" : "did you mean \"" + near + "\"? ") + ("known: " + join(names)));
}

}  // namespace

std::vector<std::string> method_aliases() {
  std::vector<std::string> names;
  for (const auto& alias : aliases()) names.push_back(alias.first);
  return names;
}

Method parse_method(std::string_view text) {
  const std::vector<std::string> pieces = split(text);
  if (pieces.size() > 1 && pieces.back().empty())
    invalid_text("\"" + join(pieces, "+") + "\" ends with a +", "name the second part");
  std::vector<PartSpec> parts;
  for (const std::string& one : pieces) {
    const Piece piece = read_piece(one);
    if (const auto alias = aliases().find(piece.name); alias != aliases().end())
      read_alias(alias->second, piece, parts);
    else if (part_named(piece.name) != nullptr)
      parts.push_back(read_part(piece.name, piece));
    else
      refuse_name(piece.name);
  }
  return make_method(std::move(parts));
}

std::string method_text(const Method& method) {
  std::vector<std::string> texts;
  for (const PartSpec& part : method.parts) texts.push_back(text_of(part));
  return join(texts, "+");
}

}  // namespace ringlet::adapt
