// Sentences as vectors (Reimers and Gurevych 2019): a BERT or RoBERTa whose tokens are pooled into
// one vector of length 1, in the folders that sentence-transformers writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include <ATen/core/Tensor.h>

#include "ringlet/models/text/bert.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

/// How the vectors of a text's tokens become one.
enum class Pooling { mean, first_token, largest, mean_of_root };

/// What a folder says of sentences: modules.json with the pooling's config.json, and
/// sentence_bert_config.json. A folder of transformers says nothing: the mean is taken.
struct SentenceFolder {
  std::filesystem::path network;  ///< the folder of config.json, weights and tokenizer
  Pooling pooling = Pooling::mean;
  std::optional<std::int64_t> length;  ///< tokens of a text, at most

  /// Throws Error(unsupported) for modules other than Transformer, Pooling and Normalize and for
  /// other or several poolings, and Error(bad_format).
  static SentenceFolder read(const std::filesystem::path& folder);
};

class SentenceEncoder {
 public:
  SentenceEncoder(const nn::WeightSource& source, const BertConfig& config, Pooling pooling);

  /// -> [B, width], each of length 1. Padding (TextBatch::seen) has no part in it.
  at::Tensor forward(const TextBatch& texts) const;

 private:
  Bert network_;
  Pooling pooling_;
};

/// Multiple negatives ranking (Henderson et al. 2017; Oord et al. 2018): of all second texts of the
/// batch, each first one is to find its own, by the cross entropy of the cosines times `scale`.
/// Both [B, width], of length 1.
at::Tensor ranking_loss(const at::Tensor& first, const at::Tensor& second, double scale = 20.0);

}  // namespace ringlet::models
