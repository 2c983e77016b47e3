// Tokenizers and networks of language on wrong and extreme inputs; numbers are in
// tests/golden/language_golden_test.cpp.
#include <fstream>

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/models/text/bert.h"
#include "ringlet/models/text/gpt2.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/tokenizers/byte_bpe_tokenizer.h"
#include "ringlet/tokenizers/wordpiece_tokenizer.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::models {
namespace {

namespace fs = std::filesystem;
const fs::path kTokenizers = fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data/tokenizers";

class TextNetworks : public testing::Test {
 protected:
  void file(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ / name) << content;
  }
  static nn::WeightSource random() {
    return nn::WeightSource(std::make_shared<nn::RandomStore>(1));
  }
  TemporaryFolder folder_;
};

TEST_F(TextNetworks, WordPieceRefusesBadVocabularies) {
  expect_error(ErrorCode::not_found, "vocab.txt",
               [&] { tokenizers::WordPieceTokenizer::open(folder_.path()); });
  file("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n");
  expect_error(ErrorCode::bad_format, "[SEP]",
               [&] { tokenizers::WordPieceTokenizer::open(folder_.path()); });
  fs::remove(folder_ / "vocab.txt");
  file("tokenizer.json", R"({"model": {"type": "BPE", "vocab": {}}})");
  expect_error(ErrorCode::unsupported, "WordPiece",
               [&] { tokenizers::WordPieceTokenizer::open(folder_.path()); });
  file("tokenizer.json", R"({"model": {"type": "WordPiece", "vocab": {"[PAD]": 7}}})");
  expect_error(ErrorCode::bad_format, "not a valid index",
               [&] { tokenizers::WordPieceTokenizer::open(folder_.path()); });
  file("tokenizer.json", R"({"model": {"type": "WordPiece", "vocab": {"[PAD]": 0, "[UNK]": 1,
                             "[CLS]": 2, "[SEP]": 3, "a": 4, "##b": 5}}})");
  const auto tokenizer = tokenizers::WordPieceTokenizer::open(folder_.path());
  EXPECT_EQ(tokenizer.encode("Ab ac", 10).ids, (std::vector<std::int64_t>{2, 4, 5, 1, 3}));
  EXPECT_EQ(tokenizer.encode("a a a a", 3).ids, (std::vector<std::int64_t>{2, 4, 3}));
  EXPECT_EQ(tokenizer.encode("a", "a a a a", 6).ids, (std::vector<std::int64_t>{2, 4, 3, 4, 4, 3}));
  EXPECT_EQ(tokenizer.encode("a", "a", 6).second, 3u);
  expect_error(ErrorCode::invalid_argument, "no room", [&] { tokenizer.encode("a a a", "a", 5); });
  expect_error(ErrorCode::invalid_argument, "UTF-8", [&] { tokenizer.encode("\xFF", 5); });
}

TEST_F(TextNetworks, BytePairsRefuseBadVocabularies) {
  expect_error(ErrorCode::not_found, "byte-level BPE",
               [&] { tokenizers::ByteBpeTokenizer::open(folder_.path()); });
  file("vocab.json", R"({"a": 0})");
  file("merges.txt", "#version: 0.2\n");
  expect_error(ErrorCode::bad_format, "lacks",
               [&] { tokenizers::ByteBpeTokenizer::open(folder_.path()); });
  file("merges.txt", "a b c\n");
  expect_error(ErrorCode::bad_format, "not two tokens",
               [&] { tokenizers::ByteBpeTokenizer::open(folder_.path()); });
  const auto whole = tokenizers::ByteBpeTokenizer::open(kTokenizers / "byte_bpe");
  expect_error(ErrorCode::invalid_argument, "no room",
               [&] { whole.encode("a long first text", "b", 6); });
  EXPECT_EQ(whole.encode("many words in a row", 4).ids.size(), 4u);
  EXPECT_EQ(whole.decode(whole.tokenize("").ids), "");
  const auto learnt = tokenizers::learn_byte_pairs({"ab ab"}, 300, {"<|endoftext|>"});
  file("vocab.json", learnt.vocabulary);
  file("merges.txt", learnt.merges);
  expect_error(ErrorCode::unsupported, "RoBERTa's",
               [&] { tokenizers::ByteBpeTokenizer::open(folder_.path()).encode("ab", 5); });
}

TEST(SplitForGpt2, KeepsEveryByte) {
  for (const std::string text : {"a  b", " ' s's", "\n\n x\t", "it's 3.5\u00a0m", "   "}) {
    std::size_t at = 0;
    for (const tokenizers::TextPart& part : tokenizers::split_for_gpt2(text)) {
      EXPECT_EQ(part.begin, at) << text;
      at = part.end;
    }
    EXPECT_EQ(at, text.size()) << text;
  }
}

TEST_F(TextNetworks, ConfigurationsAreChecked) {
  const auto bert = [](const char* json) { BertConfig::from_json(parse_json(json, "c"), "c"); };
  expect_error(ErrorCode::unsupported, "llama", [&] { bert(R"({"model_type": "llama"})"); });
  expect_error(ErrorCode::unsupported, "relative", [&] {
    bert(R"({"model_type": "bert", "position_embedding_type": "relative_key"})");
  });
  expect_error(ErrorCode::bad_format, "multiple", [&] {
    bert(R"({"model_type": "bert", "hidden_size": 10, "num_attention_heads": 3})");
  });
  expect_error(ErrorCode::bad_format, "pad_token_id",
               [&] { bert(R"({"model_type": "roberta", "max_position_embeddings": 2})"); });
  const auto gpt2 = [](const char* json) { Gpt2Config::from_json(parse_json(json, "c"), "c"); };
  expect_error(ErrorCode::unsupported, "gelu_new",
               [&] { gpt2(R"({"model_type": "gpt2", "activation_function": "relu"})"); });
  expect_error(ErrorCode::bad_format, "positive",
               [&] { gpt2(R"({"model_type": "gpt2", "n_layer": 0})"); });
}

TEST_F(TextNetworks, TextsBeyondThePositionsAreRefused) {
  BertConfig small{
      .vocabulary = 9, .width = 8, .layers = 1, .heads = 2, .inner_width = 8, .positions = 6};
  const Bert bert(random(), small);
  expect_error(ErrorCode::invalid_argument, "6 are the limit", [&] {
    bert.forward({at::zeros({1, 7}, at::kLong), {}, {}});
  });
  Gpt2Config tiny{
      .vocabulary = 9, .width = 8, .layers = 1, .heads = 2, .inner_width = 8, .positions = 6};
  const Gpt2 gpt2(random(), tiny);
  Gpt2Cache cache;
  gpt2.forward(at::zeros({1, 5}, at::kLong), &cache);
  expect_error(ErrorCode::invalid_argument, "7 tokens", [&] {
    gpt2.forward(at::zeros({1, 2}, at::kLong), &cache);
  });
  const at::Tensor start = at::zeros({1, 1}, at::kLong);
  const auto write = [&](const WriteOptions& options) {
    return gpt2.write(start, options, RandomStream(1, 1));
  };
  EXPECT_EQ(write({.tokens = 4, .top_k = 1}), write({.tokens = 4, .temperature = 0.0}));
  EXPECT_EQ(write({.tokens = 4, .top_p = 1e-9}), write({.tokens = 4, .temperature = 0.0}));
  EXPECT_EQ(write({.tokens = 4}), write({.tokens = 4}));
  const auto likeliest = write({.tokens = 1, .temperature = 0.0});
  EXPECT_TRUE(write({.tokens = 4, .temperature = 0.0, .end_id = likeliest.front()}).empty());
}

}  // namespace
}  // namespace ringlet::models
