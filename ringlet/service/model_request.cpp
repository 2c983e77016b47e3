#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/nn/device.h"
#include "ringlet/pipeline/offload.h"
#include "ringlet/service/generator.h"
#include "ringlet/service/json_fields.h"
#include "ringlet/service/request_json.h"

namespace ringlet::service {
namespace {

EmbeddingChoice read_embedding(const Json& json, const std::string& path) {
  EmbeddingChoice embedding;
  JsonFields fields(json, path);
  fields.require("file", embedding.file);
  fields.read("word", embedding.word);
  fields.finish();
  return embedding;
}

}  // namespace

void describe(OptionList& list, ModelRequest& r) {
  list.add("model", r.model, "Model folder (diffusers) or single .safetensors checkpoint")
      .required();
  pipeline::describe(list, r.load.files);
  pipeline::describe_prediction(list, r.load.files);
  pipeline::describe_text_tokens(list, r.load.files);
  list.add("low_memory", r.load.low_memory,
           "Read convolutions from the file in every step, and encode and decode large images in "
           "tiles; slower");
  nn::describe(list, r.load.storage);
  pipeline::describe_offload(list, r.load);
  list.add("controlnet", r.controlnet, "ControlNet folder (diffusers) that sees `control_image`");
}

ModelRequest model_request_from_json(const Json& json) {
  ModelRequest request;
  OptionList list;
  describe(list, request);
  JsonFields fields(json);
  read_options(fields, list);
  read_device(fields, request.load, nn::Work::inference);
  read_adapters(fields, request.adapters);
  fields.read_list("embeddings", read_embedding, request.embeddings);
  fields.finish();
  return request;
}

Json to_json(const ModelRequest& request) {
  ModelRequest described = request;
  OptionList list;
  describe(list, described);
  Json json = set_values(list);
  write_device(json, request.load);
  write_adapters(json, request.adapters);
  for (const EmbeddingChoice& embedding : request.embeddings)
    json["embeddings"].push_back({{"file", embedding.file.string()}, {"word", embedding.word}});
  return json;
}

}  // namespace ringlet::service
