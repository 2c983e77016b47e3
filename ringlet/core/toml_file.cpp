#include "ringlet/core/toml_file.h"

#include <sstream>
#include <string>

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

}  // namespace

Json read_toml_file(const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  try {
    return to_json(toml::parse(text, path.string()));
  } catch (const toml::parse_error& problem) {
    const auto where = problem.source().begin;
    throw Error(
        ErrorCode::bad_format,
        path.string() + ":" + std::to_string(where.line) + ":" + std::to_string(where.column),
        std::string(problem.description()), "the file must be TOML");
  }
}

}  // namespace ringlet
