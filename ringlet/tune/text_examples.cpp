#include "ringlet/tune/text_examples.h"

#include <algorithm>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/error.h"
#include "ringlet/core/read_file.h"
#include "ringlet/nn/device.h"
#include "ringlet/tokenizers/byte_bpe_tokenizer.h"
#include "ringlet/tokenizers/wordpiece_tokenizer.h"

namespace ringlet::tune {

namespace fs = std::filesystem;

std::vector<JsonLine> read_json_lines(const fs::path& file) {
  if (!fs::is_regular_file(file))
    throw Error(ErrorCode::not_found, file.string(), "the examples cannot be opened",
                "the file needs one JSON object per line");
  std::vector<JsonLine> lines;
  std::size_t number = 0;
  for (const std::string& line : read_text_lines(file)) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = file.string() + ":" + std::to_string(number);
    lines.push_back({parse_json(line, where), where});
    if (!lines.back().json.is_object())
      throw Error(ErrorCode::bad_format, where, "is not a JSON object");
  }
  return lines;
}

std::shared_ptr<const tokenizers::Tokenizer> encoder_tokenizer(const fs::path& folder,
                                                               const models::BertConfig& config) {
  std::shared_ptr<const tokenizers::Tokenizer> tokenizer;
  if (config.kind == models::BertConfig::Kind::bert)
    tokenizer = std::make_shared<tokenizers::WordPieceTokenizer>(
        tokenizers::WordPieceTokenizer::open(folder));
  else
    tokenizer =
        std::make_shared<tokenizers::ByteBpeTokenizer>(tokenizers::ByteBpeTokenizer::open(folder));
  const std::int64_t size = tokenizer->vocabulary_size();
  if (size > config.vocabulary)
    throw Error(ErrorCode::mismatch, folder.string(),
                "the tokenizer has " + std::to_string(size) + " tokens, the network " +
                    std::to_string(config.vocabulary),
                "they come from different models");
  return tokenizer;
}

models::TextBatch text_batch(const std::vector<const tokenizers::EncodedText*>& texts,
                             std::int64_t pad_id, at::Device device) {
  std::size_t longest = 0;
  for (const tokenizers::EncodedText* text : texts) longest = std::max(longest, text->ids.size());
  const std::vector<std::int64_t> shape = {static_cast<std::int64_t>(texts.size()),
                                           static_cast<std::int64_t>(longest)};
  models::TextBatch batch{at::full(shape, pad_id, at::kLong), at::zeros(shape, at::kBool),
                          at::zeros(shape, at::kLong)};
  for (std::size_t row = 0; row < texts.size(); ++row) {
    const std::size_t start = row * longest;
    std::ranges::copy(texts[row]->ids, batch.ids.data_ptr<std::int64_t>() + start);
    std::ranges::copy(texts[row]->types, batch.types.data_ptr<std::int64_t>() + start);
    std::fill_n(batch.seen.data_ptr<bool>() + start, texts[row]->ids.size(), true);
  }
  return {nn::to_device(batch.ids, device), nn::to_device(batch.seen, device),
          nn::to_device(batch.types, device)};
}

models::BertConfig checked_length(const models::BertConfig& config, std::int64_t length) {
  if (length < 4 || length > config.longest())
    throw Error(
        ErrorCode::invalid_argument, Field("length"),
        "must lie between 4 and " + std::to_string(config.longest()) + ", which the network takes");
  return config;
}

}  // namespace ringlet::tune
