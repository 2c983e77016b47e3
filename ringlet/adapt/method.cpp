#include "ringlet/adapt/method.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::adapt {
namespace {

[[noreturn]] void invalid(const std::string& what, const std::string& hint) {
  throw Error(ErrorCode::invalid_argument, Field("method"), what, hint);
}

/// What aliases stand for; % takes the options that the alias is given.
const std::map<std::string, std::string, std::less<>>& aliases() {
  static const std::map<std::string, std::string, std::less<>> table = {
      {"tlora", "trm(rank=2)+tr(rank=6)"},
      {"tlora-star", "trm(rank=2)+lora(rank=4)"},
      {"rslora", "lora(scaling=sqrt,%)"},
      {"pissa", "lora(init=pissa,%)"},
      {"olora", "lora(init=olora,%)"},
      {"dora", "lora(%)+magnitude"},
      {"coft", "oft(constraint=6e-05,%)"},
      {"loretta", "tt(%)"},
      {"ia3", "diagonal(%)"},
      {"glora", "lowrank(%)+lora(init=glora,%)"}};
  return table;
}

/// The text that an alias stands for, or the text itself.
std::string expanded(const std::string& text) {
  const std::size_t open = std::min(text.find('('), text.size());
  const auto alias = aliases().find(text.substr(0, open));
  if (alias == aliases().end()) return text;
  std::string options;
  if (open < text.size()) {
    if (text.back() != ')' || alias->second.find('%') == std::string::npos)
      invalid("\"" + text + "\" is not understood",
              alias->first + " stands for " + alias->second + "; write that with your options");
    options = text.substr(open + 1, text.size() - open - 2);
  }
  std::string full;
  for (const char c : alias->second) full += c == '%' ? options : std::string(1, c);
  return full;
}

/// The largest whole number of a kind.
double largest(OptionKind kind) {
  constexpr double kLargestCount = 9007199254740992.0;  // 2^53: all below are exact as a double
  const bool size = kind == OptionKind::positive_integer || kind == OptionKind::integer;
  return size ? static_cast<double>(kLargestSize) : kLargestCount;
}

void check_value(const std::string& part, const OptionEntry& option, const std::string& value) {
  const std::string where = part + "(" + option.name + "=" + value + ")";
  if (option.kind == OptionKind::word) {
    if (std::ranges::find(option.words, value) == option.words.end())
      invalid(where + " is not known", "known: " + join(option.words));
    return;
  }
  if (option.kind == OptionKind::split) {
    if (!value.empty()) parse_factors(value);
    return;
  }
  const bool fraction =
      option.kind == OptionKind::number || option.kind == OptionKind::non_negative;
  const bool below = option.kind == OptionKind::integer;
  const bool zero = option.kind == OptionKind::whole || option.kind == OptionKind::non_negative;
  const std::optional<double> number = read_number(value);
  const bool fits = number && (below || *number > 0.0 || (zero && *number == 0.0)) &&
                    (fraction || std::abs(*number) <= largest(option.kind));
  if (!fits)
    invalid(where + " must be a number" +
                (below  ? ""
                 : zero ? ", 0 or above"
                        : " above 0"),
            "for example " + part + "(" + option.name + "=" +
                (option.fallback.empty() ? "4" : option.fallback) + ")");
  if (!fraction && *number != std::floor(*number))
    invalid(where + " must be a whole number", "for example " + part + "(" + option.name + "=4)");
}

/// "rank=4,alpha=4" into the part's options.
void read_options(std::string_view text, const PartEntry& entry, PartSpec& part) {
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (item.empty()) continue;  // an alias without options leaves "lora(init=pissa,)"
    const std::size_t equals = item.find('=');
    if (equals == std::string_view::npos)
      invalid("\"" + std::string(item) + "\" in " + part.name + "(…) is no option",
              "write name=value");
    const std::string key(item.substr(0, equals));
    const auto option = std::ranges::find(entry.options, key, &OptionEntry::name);
    if (option == entry.options.end()) {
      std::vector<std::string> names;
      for (const OptionEntry& known : entry.options) names.push_back(known.name);
      invalid(part.name + " has no option \"" + key + "\"", "known: " + join(names));
    }
    std::string value(item.substr(equals + 1));
    check_value(part.name, *option, value);
    if (!part.options.emplace(key, std::move(value)).second)
      invalid("option \"" + key + "\" of " + part.name + " is given twice", "give it once");
  }
  for (const OptionEntry& option : entry.options)
    if (!part.options.contains(option.name))
      part.options[option.name] =
          option.same_as.empty() ? option.fallback : part.options.at(option.same_as);
}

PartSpec read_part(std::string_view text) {
  const std::size_t open = std::min(text.find('('), text.size());
  PartSpec part{std::string(text.substr(0, open)), {}};
  const PartEntry& entry = find_part(part.name);
  std::string_view options;
  if (open < text.size()) {
    if (text.back() != ')')
      invalid("\"" + std::string(text) + "\" lacks a closing bracket", "write name(option=value)");
    options = text.substr(open + 1, text.size() - open - 2);
  }
  read_options(options, entry, part);
  return part;
}

/// The options that a text has to name.
std::vector<std::string> told_options(const PartSpec& part) {
  std::vector<std::string> told;
  const PartEntry& entry = find_part(part.name);
  for (const auto& [key, value] : part.options) {
    const auto option = std::ranges::find(entry.options, key, &OptionEntry::name);
    const bool at_default = option->same_as.empty() ? value == option->fallback
                                                    : value == part.options.at(option->same_as);
    if (option->always || !at_default) told.push_back(key + "=" + value);
  }
  return told;
}

}  // namespace

const PartEntry& find_part(const std::string& name) {
  std::vector<std::string> names;
  for (const PartEntry& entry : part_registry()) {
    if (entry.name == name) return entry;
    names.push_back(entry.name);
  }
  for (const auto& alias : aliases()) names.push_back(alias.first);
  const std::string near = nearest_name(name, names);
  invalid("there is no method \"" + name + "\"",
          (near.empty() ? "" : "did you mean \"" + near + "\"? ") + ("known: " + join(names)));
}

std::vector<std::string> method_aliases() {
  std::vector<std::string> names;
  for (const auto& alias : aliases()) names.push_back(alias.first);
  return names;
}

std::int64_t PartSpec::integer(const std::string& key) const {
  return static_cast<std::int64_t>(number(key));
}

double PartSpec::number(const std::string& key) const {
  return read_number(options.at(key)).value();
}

std::string Method::text() const {
  std::string text;
  for (const PartSpec& part : parts) {
    const std::vector<std::string> options = told_options(part);
    if (!text.empty()) text += '+';
    text += part.name;
    if (!options.empty()) text += '(' + join(options, ",") + ')';
  }
  return text;
}

std::vector<std::string> split_method(std::string_view text) {
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

Method parse_method(std::string_view text) {
  std::vector<std::string> pieces = split_method(text);
  const std::string plain = join(pieces, "+");
  if (pieces.size() > 1 && pieces.back().empty())
    invalid("\"" + plain + "\" ends with a +", "name the second part");
  std::ranges::reverse(pieces);  // the next one is the last
  Method method;
  std::map<PartKind, int> counts;
  while (!pieces.empty()) {
    const std::string piece = pieces.back(), whole = expanded(piece);
    pieces.pop_back();
    if (whole != piece) {  // an alias; its parts stand in its place
      const std::vector<std::string> parts = split_method(whole);
      std::copy(parts.rbegin(), parts.rend(), std::back_inserter(pieces));
      continue;
    }
    constexpr std::size_t kMostParts = 16;
    if (method.parts.size() == kMostParts)
      invalid("the method has more than 16 parts", "write fewer");
    method.parts.push_back(read_part(piece));
    ++counts[find_part(method.parts.back().name).kind];
  }
  for (const auto& [kind, words] :
       {std::pair{PartKind::residual, "residuals"}, std::pair{PartKind::magnitude, "magnitudes"},
        std::pair{PartKind::bias, "biases"}})
    if (counts[kind] > 1)
      invalid("\"" + plain + "\" has two " + words,
              "combine transforms with one residual, for example trm(rank=2)+lora(rank=4)");
  return method;
}

void SharedContext::include(const LayerShape& shape) {
  widest.out = std::max(widest.out, shape.out);
  widest.in = std::max(widest.in, shape.patch());
}

std::shared_ptr<TransformResidual> build_adapter(const Method& method, const nn::Layer& layer,
                                                 FactorTable& factors, const Random& random,
                                                 const std::string& name, SharedContext& shared) {
  const LayerShape shape = LayerShape::of(layer.weight());
  Parts parts;
  std::map<std::string, int> repeats;
  for (const PartSpec& part : method.parts) {
    const int before = repeats[part.name]++;
    const std::string stream = name + "." + part.name + (before > 0 ? std::to_string(before) : "");
    const BuildContext context{shape,
                               layer.weight(),
                               layer.bias().defined(),
                               factors,
                               random.stream(stream),
                               shared.tensors,
                               shared.widest,
                               shared.load};
    try {
      find_part(part.name).build(part, context, parts);
    } catch (const Error& error) {
      throw Error(error.code(), name, error.where() + " " + error.message(), error.hint());
    }
  }
  return std::make_shared<TransformResidual>(shape, std::move(parts), method.text());
}

std::shared_ptr<TransformResidual> build_adapter(const Method& method, const nn::Layer& layer,
                                                 FactorTable& factors, const Random& random,
                                                 const std::string& name) {
  SharedContext alone;
  alone.include(LayerShape::of(layer.weight()));
  return build_adapter(method, layer, factors, random, name, alone);
}

std::int64_t parameter_count(const Method& method, const LayerShape& shape, FactorTable& factors) {
  std::int64_t count = 0;
  for (const PartSpec& part : method.parts)
    count += find_part(part.name).parameter_count(part, shape, factors);
  return count;
}

}  // namespace ringlet::adapt
