// What the tasks on texts share: examples from JSON lines, tokenizers, batches.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/models/text/bert.h"
#include "ringlet/tokenizers/tokenizer.h"

namespace ringlet::tune {

/// A line of a .jsonl file and where it stands.
struct JsonLine {
  Json json;
  std::string where;  ///< "train.jsonl:12"
};

/// The lines that are not empty. Throws Error(not_found | bad_format).
std::vector<JsonLine> read_json_lines(const std::filesystem::path& file);

/// The tokenizer that belongs to an encoder: WordPiece for BERT, byte pairs for RoBERTa. Throws as
/// its open(), and Error(mismatch) when it has more tokens than the encoder.
std::shared_ptr<const tokenizers::Tokenizer> encoder_tokenizer(const std::filesystem::path& folder,
                                                               const models::BertConfig& config);

/// Texts side by side, filled up with the padding token to the longest.
models::TextBatch text_batch(const std::vector<const tokenizers::EncodedText*>& texts,
                             std::int64_t pad_id, at::Device device);

/// The files of a folder that describe an encoder's or a language model's tokenizer.
inline constexpr const char* kTokenizerFiles[] = {"vocab.txt",
                                                  "vocab.json",
                                                  "merges.txt",
                                                  "tokenizer.json",
                                                  "config.json",
                                                  "tokenizer_config.json",
                                                  "special_tokens_map.json"};

/// The config, and how many tokens a text may have with it. Throws Error(invalid_argument) for a
/// length beyond what the network takes.
models::BertConfig checked_length(const models::BertConfig& config, std::int64_t length);

}  // namespace ringlet::tune
