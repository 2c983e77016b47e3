#include "ringlet/service/request_json.h"

#include <string>
#include <variant>

#include "ringlet/core/error.h"

namespace ringlet::service {
namespace {

/// Reads an option's value from the field of its name; says whether it was there.
struct FieldReader {
  JsonFields& fields;
  const char* name;

  template <class Value>
  bool operator()(Value* value) const {
    return fields.read(name, *value);
  }
  bool operator()(std::vector<std::string>* value) const {
    const Json* given = fields.find(name);
    if (given == nullptr || !given->is_string()) return fields.read(name, *value);
    *value = {given->get<std::string>()};
    return true;
  }
  /// A request holds what to_json wrote: one text. A list, number or object in its place would not
  /// be what read() takes.
  bool operator()(const WrittenValue& value) const {
    const Json present = value.value();
    if (value.repeatable || !(present.is_null() || present.is_string()))
      throw Error(ErrorCode::internal, Field(fields.path(name)),
                  "is not written as one text and cannot be read back");
    std::string text;
    if (!fields.read(name, text)) return false;
    value.read({text});
    return true;
  }
};

/// {PATTERN: FACTOR}.
void read_blocks(const Json& json, const std::string& path, pipeline::AdapterChoice& adapter) {
  if (!json.is_object())
    throw Error(ErrorCode::invalid_argument, Field(path), "is not a JSON object",
                "for example {\"unet.up_blocks.*\": 0.5}");
  for (const auto& [pattern, factor] : json.items()) {
    if (!factor.is_number())
      throw Error(ErrorCode::invalid_argument, Field(path + "." + pattern), "is not a number");
    adapter.blocks.emplace_back(pattern, factor.get<double>());
  }
}

pipeline::AdapterChoice read_adapter_choice(const Json& json, const std::string& path) {
  pipeline::AdapterChoice adapter;
  JsonFields fields(json, path);
  fields.require("file", adapter.file);
  fields.read("strength", adapter.strength);
  if (const Json* blocks = fields.find("blocks"))
    read_blocks(*blocks, fields.path("blocks"), adapter);
  fields.finish();
  return adapter;
}

Json to_json(const pipeline::AdapterChoice& adapter) {
  Json json = {{"file", adapter.file.string()}, {"strength", adapter.strength}};
  for (const auto& [pattern, factor] : adapter.blocks) json["blocks"][pattern] = factor;
  return json;
}

}  // namespace

void read_options(JsonFields& fields, const OptionList& list) {
  for (const Option& option : list.all()) {
    const char* name = option.field.c_str();
    if (!std::visit(FieldReader{fields, name}, option.target) && option.is_required)
      throw Error(ErrorCode::invalid_argument, Field(fields.path(name)), "is needed");
  }
  list.check();
}

Json set_values(const OptionList& list) {
  Json values = list.values();
  for (const Option& option : list.all())
    if (const Json& value = values.at(option.field);
        value.is_null() || value == "" || value == Json::array())
      values.erase(option.field);
  return values;
}

void read_device(JsonFields& fields, pipeline::LoadOptions& load, nn::Work work) {
  std::string device = "auto", precision;
  fields.read("device", device);
  fields.read("precision", precision);
  load.device = nn::select_device(device);
  load.precision = nn::select_precision(precision, load.device, work);
}

void write_device(Json& json, const pipeline::LoadOptions& load) {
  json["device"] = load.device.str();
  json["precision"] = nn::precision_name(load.precision);
}

void read_adapters(JsonFields& fields, std::vector<pipeline::AdapterChoice>& adapters) {
  fields.read_list("adapters", read_adapter_choice, adapters);
}

void write_adapters(Json& json, const std::vector<pipeline::AdapterChoice>& adapters) {
  for (const pipeline::AdapterChoice& adapter : adapters)
    json["adapters"].push_back(to_json(adapter));
}

}  // namespace ringlet::service
