#include "option_words.h"

#include <algorithm>
#include <cctype>

namespace ringlet::app {
namespace {

bool is_field(std::string_view text) {
  if (text.empty() || std::islower(static_cast<unsigned char>(text.front())) == 0) return false;
  return std::ranges::all_of(text, [](unsigned char c) {
    return std::islower(c) != 0 || std::isdigit(c) != 0 || c == '_' || c == '.';
  });
}

/// What stands between two back quotes: "field" or "field=value".
std::string option_with_value(std::string_view marked) {
  const std::size_t equals = marked.find('=');
  const std::string_view field = marked.substr(0, equals);
  if (!is_field(field)) return "`" + std::string(marked) + "`";
  if (equals == std::string_view::npos) return option_of(field);
  return option_of(field) + " " + std::string(marked.substr(equals + 1));
}

}  // namespace

std::string option_of(std::string_view field) {
  std::string name(field.substr(field.rfind('.') + 1));  // npos + 1 = 0
  std::ranges::replace(name, '_', '-');
  return "--" + name;
}

std::string with_options(std::string_view message) {
  std::string text;
  std::size_t at = 0;
  while (true) {
    const std::size_t begin = message.find('`', at);
    const std::size_t end = begin == std::string_view::npos ? begin : message.find('`', begin + 1);
    if (end == std::string_view::npos) return text.append(message.substr(at));
    text.append(message.substr(at, begin - at));
    text += option_with_value(message.substr(begin + 1, end - begin - 1));
    at = end + 1;
  }
}

std::vector<std::string> with_options(const std::vector<std::string>& messages) {
  std::vector<std::string> texts;
  for (const std::string& message : messages) texts.push_back(with_options(message));
  return texts;
}

Error with_options(const Error& error) {
  return {error.code(), error.at_field() ? option_of(error.where()) : with_options(error.where()),
          with_options(error.message()), with_options(error.hint())};
}

}  // namespace ringlet::app
