#include "ringlet/models/text/bert.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros_like.h>

#include "ringlet/core/error.h"
#include "ringlet/models/config_number.h"
#include "ringlet/models/published_layout.h"
#include "ringlet/nn/attention.h"

namespace ringlet::models {
namespace {

nn::WeightSource top(const nn::WeightSource& source, const BertConfig& c) {
  return source.at(c.name());
}

const char* dense_name(const BertConfig& c) {
  return c.kind == BertConfig::Kind::bert ? "bert.pooler.dense" : "classifier.dense";
}

const char* classifier_name(const BertConfig& c) {
  return c.kind == BertConfig::Kind::bert ? "classifier" : "classifier.out_proj";
}

}  // namespace

BertConfig BertConfig::from_json(const Json& json, const std::string& where) {
  const std::string type = required_network_type(json, where);
  BertConfig c;
  if (type == "roberta") {
    c.kind = Kind::roberta;
    c.vocabulary = 50265;
    c.pad_id = 1;
  } else if (type != "bert") {
    throw Error(ErrorCode::unsupported, where, "model_type \"" + type + "\" is not known",
                "texts are read by bert and roberta");
  }
  const auto number = [&](const char* key, std::int64_t fallback) {
    return positive_number(json, key, fallback, where);
  };
  c.vocabulary = number("vocab_size", c.vocabulary);
  c.width = number("hidden_size", c.width);
  c.layers = number("num_hidden_layers", c.layers);
  c.heads = number("num_attention_heads", c.heads);
  c.inner_width = number("intermediate_size", c.inner_width);
  c.positions = number("max_position_embeddings", c.positions);
  c.types = number("type_vocab_size", c.types);
  c.pad_id = json_value(json, "pad_token_id", c.pad_id, where);
  c.epsilon = json_value(json, "layer_norm_eps", c.epsilon, where);
  const auto activation = json_value<std::string>(json, "hidden_act", "gelu", where);
  const auto places = json_value<std::string>(json, "position_embedding_type", "absolute", where);
  if (activation != "gelu" || places != "absolute")
    throw Error(ErrorCode::unsupported, where,
                "hidden_act \"" + activation + "\" with position_embedding_type \"" + places + "\"",
                "ringlet reads \"gelu\" with \"absolute\"");
  if (c.width % c.heads != 0)
    throw Error(ErrorCode::bad_format, where, "hidden_size must be a multiple of the heads");
  if (c.pad_id < 0 || c.pad_id >= c.vocabulary || c.longest() < 2)
    throw Error(ErrorCode::bad_format, where, "pad_token_id does not fit the sizes");
  return c;
}

std::int64_t BertConfig::longest() const {
  return kind == Kind::bert ? positions : positions - pad_id - 1;
}

Bert::EncoderLayer::EncoderLayer(const nn::WeightSource& s, const BertConfig& c)
    : heads(c.heads),
      query(s.at("attention.self.query"), c.width, c.width),
      key(s.at("attention.self.key"), c.width, c.width),
      value(s.at("attention.self.value"), c.width, c.width),
      attended(s.at("attention.output.dense"), c.width, c.width),
      attention_norm(s.at("attention.output.LayerNorm"), c.width, c.epsilon),
      inner(s.at("intermediate.dense"), c.width, c.inner_width),
      outer(s.at("output.dense"), c.inner_width, c.width),
      output_norm(s.at("output.LayerNorm"), c.width, c.epsilon) {}

at::Tensor Bert::EncoderLayer::forward(const at::Tensor& x, const at::Tensor& seen) const {
  const at::Tensor mixed =
      nn::multi_head_attention(query(x), key(x), value(x), heads, /*causal=*/false, seen);
  const at::Tensor y = attention_norm(attended(mixed) + x);
  return output_norm(outer(at::gelu(inner(y))) + y);
}

Bert::Bert(const nn::WeightSource& source, const BertConfig& c)
    : config_(c),
      words_(top(source, c).at("embeddings.word_embeddings"), c.vocabulary, c.width),
      positions_(top(source, c).at("embeddings.position_embeddings"), c.positions, c.width),
      types_(top(source, c).at("embeddings.token_type_embeddings"), c.types, c.width),
      norm_(top(source, c).at("embeddings.LayerNorm"), c.width, c.epsilon) {
  const nn::WeightSource layers = top(source, c).at("encoder.layer");
  for (std::int64_t i = 0; i < c.layers; ++i) layers_.emplace_back(layers.at(i), c);
}

at::Tensor Bert::position_ids(const at::Tensor& ids) const {
  if (config_.kind == BertConfig::Kind::bert)
    return at::arange(ids.size(1), ids.options()).unsqueeze(0);
  const at::Tensor real = ids.ne(config_.pad_id).to(ids.scalar_type());
  return at::cumsum(real, 1) * real + config_.pad_id;
}

at::Tensor Bert::forward(const TextBatch& texts) const {
  if (texts.ids.size(1) > config_.longest())
    throw Error(ErrorCode::invalid_argument, config_.name(),
                "a text of " + std::to_string(texts.ids.size(1)) + " tokens; " +
                    std::to_string(config_.longest()) + " are the limit",
                "cut texts to `length`");
  const at::Tensor types = texts.types.defined() ? texts.types : at::zeros_like(texts.ids);
  at::Tensor x = norm_(words_(texts.ids) + types_(types) + positions_(position_ids(texts.ids)));
  const at::Tensor seen =
      texts.seen.defined() ? texts.seen.to(at::kBool).unsqueeze(1).unsqueeze(1) : at::Tensor();
  for (const EncoderLayer& layer : layers_) x = layer.forward(x, seen);
  return x;
}

TextClassifier::TextClassifier(const nn::WeightSource& source, const BertConfig& c,
                               std::int64_t classes)
    : network_(source, c),
      dense_(source.at(dense_name(c)), c.width, c.width),
      classifier_(source.at(classifier_name(c)), c.width, classes) {}

at::Tensor TextClassifier::forward(const TextBatch& texts) const {
  return classifier_(at::tanh(dense_(network_.forward(texts).select(1, 0))));
}

std::vector<std::string> TextClassifier::head_layers(const BertConfig& c) {
  return {dense_name(c), classifier_name(c)};
}

SpanFinder::SpanFinder(const nn::WeightSource& source, const BertConfig& c)
    : network_(source, c), outputs_(source.at("qa_outputs"), c.width, 2) {}

std::pair<at::Tensor, at::Tensor> SpanFinder::forward(const TextBatch& texts) const {
  const at::Tensor scores = outputs_(network_.forward(texts));
  return {scores.select(2, 0), scores.select(2, 1)};
}

}  // namespace ringlet::models
