// BERT (Devlin et al. 2019) and RoBERTa (Liu et al. 2019): a transformer encoder of texts, with
// heads that classify a text or find a span in it. Tensor names are those of transformers' classes
// with a head; models/published_layout.h brings other checkpoints to them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/norm.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct BertConfig {
  enum class Kind { bert, roberta };

  Kind kind = Kind::bert;
  std::int64_t vocabulary = 30522;
  std::int64_t width = 768;
  std::int64_t layers = 12;
  std::int64_t heads = 12;
  std::int64_t inner_width = 3072;  ///< of the feed-forward layers
  std::int64_t positions = 512;     ///< RoBERTa's first pad_id + 1 are not used
  std::int64_t types = 2;
  std::int64_t pad_id = 0;
  double epsilon = 1e-12;

  /// Reads a config.json whose network_type is bert or roberta. Throws Error(bad_format |
  /// unsupported).
  static BertConfig from_json(const Json& json, const std::string& where);

  const char* name() const { return kind == Kind::bert ? "bert" : "roberta"; }
  std::int64_t longest() const;  ///< tokens of a text, at most
};

/// Texts of one length.
struct TextBatch {
  at::Tensor ids;    ///< int64 [B, T]
  at::Tensor seen;   ///< bool [B, T], false for padding
  at::Tensor types;  ///< int64 [B, T]: which of two texts; undefined = the first
};

class Bert {
 public:
  /// `source` is the network's top: what "bert.…" or "roberta.…" is in.
  Bert(const nn::WeightSource& source, const BertConfig& config);

  /// -> [B, T, width]. Throws Error(invalid_argument) for texts longer than longest().
  at::Tensor forward(const TextBatch& texts) const;

  const BertConfig& config() const { return config_; }

 private:
  struct EncoderLayer {
    EncoderLayer(const nn::WeightSource& source, const BertConfig& config);
    at::Tensor forward(const at::Tensor& x, const at::Tensor& seen) const;

    std::int64_t heads;
    nn::Linear query, key, value, attended;
    nn::LayerNorm attention_norm;
    nn::Linear inner, outer;
    nn::LayerNorm output_norm;
  };

  at::Tensor position_ids(const at::Tensor& ids) const;

  BertConfig config_;
  nn::EmbeddingTable words_, positions_, types_;
  nn::LayerNorm norm_;
  std::vector<EncoderLayer> layers_;
};

/// BertForSequenceClassification: BERT's pooler (a layer with tanh on the first token) and a
/// classifier; RobertaForSequenceClassification: classifier.dense with tanh, classifier.out_proj.
class TextClassifier {
 public:
  TextClassifier(const nn::WeightSource& source, const BertConfig& config, std::int64_t classes);

  /// -> scores [B, classes].
  at::Tensor forward(const TextBatch& texts) const;

  /// The layers of a head, by their names, and the prefixes of tensors that belong to it.
  static std::vector<std::string> head_layers(const BertConfig& config);

 private:
  Bert network_;
  nn::Linear dense_, classifier_;
};

/// BertForQuestionAnswering: for every token a score of being the first and of being the last one
/// of the answer.
class SpanFinder {
 public:
  SpanFinder(const nn::WeightSource& source, const BertConfig& config);

  /// -> two of [B, T].
  std::pair<at::Tensor, at::Tensor> forward(const TextBatch& texts) const;

 private:
  Bert network_;
  nn::Linear outputs_;
};

}  // namespace ringlet::models
