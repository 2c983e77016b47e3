#include "ringlet/data/dataset_file.h"

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/core/toml_file.h"

namespace ringlet::data {
namespace {

namespace fs = std::filesystem;

std::string spelled(std::string field) {
  std::ranges::replace(field, '_', '-');
  return field;
}

/// Gives an option the value of its key.
class TableValue {
 public:
  TableValue(const Json& value, std::string key, std::string where)
      : value_(value), key_(std::move(key)), where_(std::move(where)) {}

  template <class T>
  void operator()(T* target) const {
    *target = as<T>();
  }
  void operator()(fs::path* target) const { *target = as<std::string>(); }
  template <class T>
  void operator()(std::optional<T>* target) const {
    *target = as<T>();
  }
  void operator()(const WrittenValue& target) const {
    target.read({value_.is_string() ? value_.get<std::string>() : value_.dump()});
  }

 private:
  template <class T>
  T as() const {
    if (!detail::holds(value_, static_cast<const T*>(nullptr))) throw wrong_type();
    try {
      return value_.get<T>();
    } catch (const Json::exception&) {
      throw wrong_type();
    }
  }
  Error wrong_type() const {
    return {ErrorCode::invalid_argument, where_,
            "\"" + key_ + "\" cannot be " + value_.dump() + ": it has another type"};
  }

  const Json& value_;
  std::string key_, where_;
};

[[noreturn]] void refuse_key(const std::string& where, const std::string& key,
                             const OptionList& list) {
  std::vector<std::string> known;
  for (const Option& option : list.all()) known.push_back(spelled(option.field));
  const std::string near = nearest_name(key, known);
  throw Error(ErrorCode::invalid_argument, where, "a data set has no key \"" + key + "\"",
              near.empty() ? "its keys are " + join(known) : "did you mean \"" + near + "\"?");
}

void take_value(OptionList& list, const std::string& key, const Json& value,
                const std::string& where) {
  const auto is_named = [&](const Option& option) {
    return option.field == key || spelled(option.field) == key;
  };
  const auto option = std::ranges::find_if(list.all(), is_named);
  if (option == list.all().end()) refuse_key(where, key, list);
  std::visit(TableValue(value, key, where), option->target);
  option->check();
}

/// Errors at options get the place of their key.
template <class Work>
void placed(const LocatedToml& file, const std::string& table, const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    if (!error.at_field()) throw;
    const std::string key = spelled(error.where());
    const bool has_dashes = file.lines.contains(table + "/" + key);
    throw Error(error.code(), file.place(table + "/" + (has_dashes ? key : error.where())),
                "\"" + key + "\": " + error.message(), error.hint());
  }
}

Dataset read_dataset_table(const LocatedToml& file, const std::string& table, const Json& json,
                           const Dataset& usual) {
  Dataset dataset = usual;
  if (!json.is_object())
    throw Error(ErrorCode::invalid_argument, file.place(table), "a data set is a table",
                "write [[dataset]] above its keys");
  OptionList list;
  describe(list, dataset);
  placed(file, table, [&] {
    for (const auto& [key, value] : json.items())
      take_value(list, key, value, file.place(table + "/" + key));
    check(dataset);
  });
  return dataset;
}

}  // namespace

std::vector<Dataset> read_dataset_tables(const fs::path& path, const Dataset& usual) {
  const LocatedToml file = read_located_toml(path);
  const Json tables = file.json.value("dataset", Json::array());
  if (!tables.is_array())
    throw Error(ErrorCode::invalid_argument, file.place("/dataset"),
                "data sets are an array of tables", "write [[dataset]], not [dataset]");
  std::vector<Dataset> datasets;
  for (std::size_t i = 0; i < tables.size(); ++i)
    datasets.push_back(read_dataset_table(file, "/dataset/" + std::to_string(i), tables[i], usual));
  return datasets;
}

}  // namespace ringlet::data
