#include "ringlet/tune/labels.h"

#include <algorithm>
#include <charconv>

namespace ringlet::tune {
namespace {

/// Names by number; empty when the config has none or they are not numbered from 0 on.
std::vector<std::string> names_in(const Json& config, const std::string& where) {
  const Json table = json_value(config, "id2label", Json::object(), where);
  std::vector<std::string> names(table.size());
  for (const auto& [key, name] : table.items()) {
    std::size_t number = names.size();
    std::from_chars(key.data(), key.data() + key.size(), number);
    if (number >= names.size() || !name.is_string()) return {};
    names[number] = name.get<std::string>();
  }
  return names;
}

}  // namespace

Labels::Labels(const Json& config, const std::set<std::string>& of_examples,
               const std::string& where)
    : names_(names_in(config, where)) {
  const std::set<std::string> known(names_.begin(), names_.end());
  from_config_ = known.size() == names_.size() && std::ranges::includes(known, of_examples);
  if (!from_config_) names_.assign(of_examples.begin(), of_examples.end());
}

std::int64_t Labels::index(const std::string& name, const std::string& where) const {
  const auto found = std::ranges::find(names_, name);
  if (found == names_.end())
    throw Error(ErrorCode::invalid_argument, where, "the class \"" + name + "\" is not known",
                "it occurs in no training example");
  return found - names_.begin();
}

Json Labels::written_into(Json config) const {
  Json numbers = Json::object(), names = Json::object();
  for (std::size_t i = 0; i < names_.size(); ++i) {
    names[std::to_string(i)] = names_[i];
    numbers[names_[i]] = i;
  }
  config["id2label"] = names;
  config["label2id"] = numbers;
  config["num_labels"] = names_.size();
  return config;
}

}  // namespace ringlet::tune
