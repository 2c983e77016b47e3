#include "ringlet/core/toml_file.h"

#include <cstddef>
#include <sstream>
#include <string>
#include <string_view>

#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include "ringlet/core/error.h"
#include "ringlet/core/read_file.h"

namespace ringlet {
namespace {

Json to_json(const toml::node& node) {
  if (const auto* table = node.as_table()) {
    Json object = Json::object();
    for (const auto& [key, value] : *table) object[std::string(key.str())] = to_json(value);
    return object;
  }
  if (const auto* array = node.as_array()) {
    Json list = Json::array();
    for (const toml::node& value : *array) list.push_back(to_json(value));
    return list;
  }
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return number->get();
  if (const auto* number = node.as_floating_point()) return number->get();
  if (const auto* flag = node.as_boolean()) return flag->get();
  std::ostringstream text;
  node.visit([&text](const auto& value) {
    if constexpr (toml::is_value<decltype(value)>) text << value.get();
  });
  return text.str();
}

/// Keys without the characters that JSON pointers escape have no other spelling there.
std::string escaped(std::string_view key) {
  std::string out;
  for (const char c : key) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

void add_lines(const toml::node& node, const std::string& pointer,
               std::map<std::string, std::int64_t>& lines) {
  if (node.source().begin.line > 0) lines.emplace(pointer, node.source().begin.line);
  if (const auto* table = node.as_table()) {
    for (const auto& [key, value] : *table) {
      const std::string inside = pointer + "/" + escaped(key.str());
      lines[inside] = key.source().begin.line;
      add_lines(value, inside, lines);
    }
  } else if (const auto* array = node.as_array()) {
    for (std::size_t i = 0; i < array->size(); ++i)
      add_lines((*array)[i], pointer + "/" + std::to_string(i), lines);
  }
}

toml::table parsed(const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  try {
    return toml::parse(text, path.string());
  } catch (const toml::parse_error& problem) {
    const auto where = problem.source().begin;
    throw Error(
        ErrorCode::bad_format,
        path.string() + ":" + std::to_string(where.line) + ":" + std::to_string(where.column),
        std::string(problem.description()), "the file must be TOML");
  }
}

}  // namespace

Json read_toml_file(const std::filesystem::path& path) { return to_json(parsed(path)); }

LocatedToml read_located_toml(const std::filesystem::path& path) {
  const toml::table table = parsed(path);
  LocatedToml file{path, to_json(table), {}};
  add_lines(table, "", file.lines);
  return file;
}

std::string LocatedToml::place(std::string pointer) const {
  for (;; pointer.erase(pointer.rfind('/'))) {
    if (const auto line = lines.find(pointer); line != lines.end())
      return path.string() + ":" + std::to_string(line->second);
    if (pointer.find('/') == std::string::npos) return path.string();
  }
}

}  // namespace ringlet
