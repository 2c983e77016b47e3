// A network of sentences with its tokenizer, from a folder of sentence-transformers or
// transformers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/models/text/sentence_encoder.h"
#include "ringlet/tune/task.h"
#include "ringlet/tune/text_examples.h"

namespace ringlet::tune {

class SentenceNetwork {
 public:
  /// `options.length` is cut to what the network takes. Throws as reading the files does, and
  /// Error(invalid_argument) for a length below 4.
  explicit SentenceNetwork(const TaskOptions& options);

  const models::BertConfig& config() const { return config_; }

  /// Named as transformers' class of the network alone, which sentence-transformers loads.
  const nn::ModuleIndex& index() const { return index_; }

  tokenizers::EncodedText encode(const std::string& text) const {
    return tokenizer_->encode(text, length_);
  }

  /// -> [texts, width], each of length 1.
  at::Tensor vectors(const std::vector<const tokenizers::EncodedText*>& texts) const;

  /// What a folder of the network has beside its weights.
  std::map<std::string, std::string> files() const;

 private:
  std::filesystem::path root_;
  models::SentenceFolder folder_;
  Json json_;
  models::BertConfig config_;
  std::int64_t length_;
  std::shared_ptr<const tokenizers::Tokenizer> tokenizer_;
  at::Device device_;
  std::optional<models::SentenceEncoder> encoder_;
  nn::ModuleIndex index_;
};

/// How many tokens a folder says that its texts have: sentence-transformers' max_seq_length, else
/// TaskOptions' own.
std::int64_t usual_length(const std::filesystem::path& folder);

}  // namespace ringlet::tune
