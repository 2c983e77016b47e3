#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/nn/device.h"
#include "ringlet/service/generator.h"
#include "ringlet/service/json_fields.h"

namespace ringlet::service {
namespace {

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

void need(bool given, const JsonFields& fields, const char* name) {
  if (!given) throw Error(ErrorCode::invalid_argument, Field(fields.path(name)), "is needed");
}

pipeline::AdapterChoice read_adapter_choice(const Json& json, const std::string& path) {
  pipeline::AdapterChoice adapter;
  JsonFields fields(json, path);
  need(fields.read("file", adapter.file), fields, "file");
  fields.read("strength", adapter.strength);
  if (const Json* blocks = fields.find("blocks"))
    read_blocks(*blocks, fields.path("blocks"), adapter);
  fields.finish();
  return adapter;
}

EmbeddingChoice read_embedding(const Json& json, const std::string& path) {
  EmbeddingChoice embedding;
  JsonFields fields(json, path);
  need(fields.read("file", embedding.file), fields, "file");
  fields.read("word", embedding.word);
  fields.finish();
  return embedding;
}

template <class Read, class T>
void read_list(JsonFields& fields, const char* name, const Read& read, std::vector<T>& values) {
  const Json* list = fields.find(name);
  if (list == nullptr) return;
  if (!list->is_array())
    throw Error(ErrorCode::invalid_argument, Field(fields.path(name)), "is not a list",
                "write [{\"file\": …}, …]");
  for (const Json& one : *list)
    values.push_back(read(one, fields.path(name) + "[" + std::to_string(values.size()) + "]"));
}

/// The device first: it says which precision is usual.
void read_numbers(JsonFields& fields, pipeline::LoadOptions& load) {
  std::string device = "auto", precision;
  fields.read("device", device);
  fields.read("precision", precision);
  load.device = nn::select_device(device);
  load.precision = nn::select_precision(precision, load.device);
  fields.read("low_memory", load.low_memory);
}

Json to_json(const pipeline::AdapterChoice& adapter) {
  Json json = {{"file", adapter.file.string()}, {"strength", adapter.strength}};
  for (const auto& [pattern, factor] : adapter.blocks) json["blocks"][pattern] = factor;
  return json;
}

}  // namespace

std::optional<diffusion::Prediction> prediction_choice(const std::string& name) {
  if (name.empty()) return std::nullopt;
  const auto known = diffusion::find_prediction(name);
  if (known && known != diffusion::Prediction::sample) return known;
  throw Error(ErrorCode::invalid_argument, Field("prediction"), "\"" + name + "\" is not known",
              "use epsilon or v");
}

ModelRequest model_request_from_json(const Json& json) {
  ModelRequest request;
  JsonFields fields(json);
  need(fields.read("model", request.model), fields, "model");
  std::string prediction;
  fields.read("variant", request.load.files.variant);
  fields.read("tokenizer", request.load.files.tokenizer);
  fields.read("prediction", prediction);
  request.load.files.prediction = prediction_choice(prediction);
  read_numbers(fields, request.load);
  read_list(fields, "adapters", read_adapter_choice, request.adapters);
  read_list(fields, "embeddings", read_embedding, request.embeddings);
  fields.read("controlnet", request.controlnet);
  fields.finish();
  return request;
}

Json to_json(const ModelRequest& request) {
  const pipeline::LoadOptions& load = request.load;
  Json json = {{"model", request.model.string()},
               {"device", load.device.str()},
               {"precision", nn::precision_name(load.precision)},
               {"low_memory", load.low_memory}};
  if (!load.files.variant.empty()) json["variant"] = load.files.variant;
  if (!load.files.tokenizer.empty()) json["tokenizer"] = load.files.tokenizer.string();
  if (load.files.prediction)
    json["prediction"] = *load.files.prediction == diffusion::Prediction::v ? "v" : "epsilon";
  for (const pipeline::AdapterChoice& adapter : request.adapters)
    json["adapters"].push_back(to_json(adapter));
  for (const EmbeddingChoice& embedding : request.embeddings)
    json["embeddings"].push_back({{"file", embedding.file.string()}, {"word", embedding.word}});
  if (!request.controlnet.empty()) json["controlnet"] = request.controlnet.string();
  return json;
}

}  // namespace ringlet::service
