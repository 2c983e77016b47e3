#include "ringlet/adapt/method.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::adapt {
namespace {

[[noreturn]] void invalid(const std::string& what, const std::string& hint) {
  throw Error(ErrorCode::invalid_argument, "--method", what, hint);
}

const std::map<std::string, std::string, std::less<>>& aliases() {
  static const std::map<std::string, std::string, std::less<>> table = {
      {"tlora", "trm(rank=2)+tr(rank=6)"}, {"tlora-star", "trm(rank=2)+lora(rank=4)"}};
  return table;
}

const PartEntry& find_part(const std::string& name) {
  std::vector<std::string> names;
  for (const PartEntry& entry : part_registry()) {
    if (entry.name == name) return entry;
    names.push_back(entry.name);
  }
  std::vector<std::string> all = names;
  for (const auto& alias : aliases()) all.push_back(alias.first);
  const std::string near = nearest_name(name, all);
  invalid("there is no method \"" + name + "\"",
          (near.empty() ? "" : "did you mean \"" + near + "\"? ") + ("known: " + join(all)));
}

void check_value(const std::string& part, const OptionEntry& option, const std::string& value) {
  const std::string where = part + "(" + option.name + "=" + value + ")";
  if (option.kind == OptionKind::word) {
    if (std::ranges::find(option.words, value) == option.words.end())
      invalid(where + " is not known", "known: " + join(option.words));
    return;
  }
  char* end = nullptr;
  const double number = std::strtod(value.c_str(), &end);
  constexpr double kLargest = 1e6;
  if (value.empty() || *end != '\0' || !(number > 0.0) || number > kLargest)
    invalid(where + " must be a number above 0", "for example " + part + "(rank=4)");
  if (option.kind == OptionKind::positive_integer &&
      number != static_cast<double>(static_cast<std::int64_t>(number)))
    invalid(where + " must be a whole number", "for example " + part + "(rank=4)");
}

/// "rank=4,alpha=4" into the part's options.
void read_options(std::string_view text, const PartEntry& entry, PartSpec& part) {
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
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

}  // namespace

std::int64_t PartSpec::integer(const std::string& key) const {
  return static_cast<std::int64_t>(number(key));
}

double PartSpec::number(const std::string& key) const {
  return std::strtod(options.at(key).c_str(), nullptr);
}

std::string Method::text() const {
  std::string text;
  for (const PartSpec& part : parts) {
    std::vector<std::string> options;
    for (const auto& [key, value] : part.options) options.push_back(key + "=" + value);
    if (!text.empty()) text += '+';
    text += part.name;
    text += '(' + join(options, ",") + ')';
  }
  return text;
}

Method parse_method(std::string_view text) {
  std::string plain;
  for (const char c : text)
    if (c != ' ') plain += c;
  if (const auto alias = aliases().find(plain); alias != aliases().end()) plain = alias->second;
  Method method;
  int transforms = 0, residuals = 0;
  std::string_view rest = plain;
  do {
    const std::size_t plus = std::min(rest.find('+'), rest.size());
    method.parts.push_back(read_part(rest.substr(0, plus)));
    const PartEntry& entry = find_part(method.parts.back().name);
    ++(entry.make_transform ? transforms : residuals);
    rest.remove_prefix(std::min(plus + 1, rest.size()));
  } while (!rest.empty());
  if (plain.ends_with('+')) invalid("\"" + plain + "\" ends with a +", "name the second part");
  if (transforms > 1 || residuals > 1)
    invalid("\"" + plain + "\" has two " + (transforms > 1 ? "transforms" : "residuals"),
            "combine one transform and one residual, for example trm(rank=2)+lora(rank=4)");
  return method;
}

std::shared_ptr<TransformResidual> build_adapter(const Method& method, const LayerShape& shape,
                                                 FactorTable& factors, const Random& random,
                                                 const std::string& layer) {
  std::unique_ptr<Transform> transform;
  std::unique_ptr<Residual> residual;
  for (const PartSpec& part : method.parts) {
    const PartEntry& entry = find_part(part.name);
    BuildContext context{shape, factors, random.stream(layer + "." + part.name)};
    if (entry.make_transform)
      transform = entry.make_transform(part, context);
    else
      residual = entry.make_residual(part, context);
  }
  return std::make_shared<TransformResidual>(shape, std::move(transform), std::move(residual),
                                             method.text());
}

std::int64_t parameter_count(const Method& method, const LayerShape& shape, FactorTable& factors) {
  std::int64_t count = 0;
  for (const PartSpec& part : method.parts)
    count += find_part(part.name).parameter_count(part, shape, factors);
  return count;
}

}  // namespace ringlet::adapt
