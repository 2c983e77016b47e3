// Networks of language against transformers, tokenizers against tokenizers (make_language.py).
#include <fstream>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "ringlet/models/text/bert.h"
#include "ringlet/models/text/gpt2.h"
#include "ringlet/models/text/sentence_encoder.h"
#include "ringlet/tokenizers/byte_bpe_tokenizer.h"
#include "ringlet/tokenizers/wordpiece_tokenizer.h"
#include "tests/golden/expected.h"
#include "tests/golden/formula.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

const std::filesystem::path kLanguageData =
    std::filesystem::path(RINGLET_SOURCE_DIR) / "tests/golden/data";
constexpr double kLanguageTolerance = 2e-5;  // relative, fp32, forward and backward

at::Tensor ids(const std::string& name, const nn::Shape& shape, std::int64_t low,
               std::int64_t high) {
  return ((golden::uniform(name, shape) + 1.0) / 2.0 * static_cast<double>(high - low))
             .floor()
             .to(at::kLong) +
         low;
}

class LanguageGolden : public testing::Test, protected golden::Expected {
 protected:
  LanguageGolden() : Expected("language", kLanguageTolerance) {}
  static nn::WeightSource source() {
    return nn::WeightSource(std::make_shared<golden::FormulaStore>(), {.trainable = true});
  }
  void expect_gradient(const std::string& name, const nn::ModuleIndex& index,
                       const std::string& tensor) {
    expect_near(name, index.tensors.at(tensor).grad());
  }
};

TEST_F(LanguageGolden, EncodersEqualTransformers) {
  for (const std::string key : {"bert", "roberta"}) {
    const auto config = models::BertConfig::from_json(configs_.at(key), key);
    const nn::WeightSource weights = source();
    const models::TextClassifier network(weights, config, 3);
    const nn::ModuleIndex index = weights.finish();
    models::TextBatch batch{ids(key + ".ids", {2, 9}, 2, 50), at::ones({2, 9}, at::kBool), {}};
    batch.ids[1].slice(0, 6).fill_(config.pad_id);
    batch.seen[1].slice(0, 6).fill_(false);
    if (key == "bert") {
      batch.types = at::zeros({2, 9}, at::kLong);
      batch.types.slice(1, 5).fill_(1);
    }
    const at::Tensor scores = network.forward(batch);
    expect_near(key + ".logits", scores.detach());
    at::cross_entropy_loss(scores, at::tensor({2, 0}, at::kLong)).backward();
    expect_gradient(key + ".query_gradient", index,
                    key + ".encoder.layer.0.attention.self.query.weight");
    expect_gradient(key + ".word_gradient", index, key + ".embeddings.word_embeddings.weight");
  }
}

TEST_F(LanguageGolden, SpansEqualTransformers) {
  const models::SpanFinder network(source(),
                                   models::BertConfig::from_json(configs_.at("bert"), "bert"));
  const auto [first, last] = network.forward({ids("bert.ids", {2, 9}, 2, 50), {}, {}});
  expect_near("span.start", first.detach());
  expect_near("span.end", last.detach());
}

TEST_F(LanguageGolden, SentencesEqualTransformers) {
  const auto config = models::BertConfig::from_json(configs_.at("bert"), "bert");
  const auto batch = [](const std::string& name) {
    models::TextBatch texts{ids(name, {3, 9}, 2, 50), at::ones({3, 9}, at::kBool), {}};
    texts.seen[1].slice(0, 6).fill_(false);
    return texts;
  };
  for (const auto& [name, pooling] : {std::pair{"sentence.first", models::Pooling::first_token},
                                      {"sentence.largest", models::Pooling::largest}})
    expect_near(name, models::SentenceEncoder(source(), config, pooling)
                          .forward(batch("sentence.first"))
                          .detach());
  const nn::WeightSource weights = source();
  const models::SentenceEncoder network(weights, config, models::Pooling::mean);
  const nn::ModuleIndex index = weights.finish();
  const at::Tensor first = network.forward(batch("sentence.first"));
  expect_near("sentence.mean", first.detach());
  const at::Tensor loss = models::ranking_loss(first, network.forward(batch("sentence.second")));
  expect_near("sentence.ranking_loss", loss.detach().view({1}));
  loss.backward();
  expect_gradient("sentence.query_gradient", index,
                  "bert.encoder.layer.0.attention.self.query.weight");
}

TEST_F(LanguageGolden, Gpt2EqualsTransformers) {
  const auto config = models::Gpt2Config::from_json(configs_.at("gpt2"), "gpt2");
  const nn::WeightSource weights = source();
  const models::Gpt2 network(weights, config);
  const nn::ModuleIndex index = weights.finish();
  const at::Tensor text = ids("gpt2.ids", {2, 11}, 0, 50);
  const at::Tensor scores = network.forward(text);
  expect_near("gpt2.logits", scores.detach());
  const at::Tensor loss =
      at::cross_entropy_loss(scores.slice(1, 0, -1).flatten(0, 1), text.slice(1, 1).flatten());
  expect_near("gpt2.loss", loss.detach().view({1}));
  loss.backward();
  expect_gradient("gpt2.attention_gradient", index, "transformer.h.0.attn.c_attn.weight");
  expect_gradient("gpt2.word_gradient", index, "transformer.wte.weight");

  // The likeliest tokens one by one, through the cache.
  const auto written = network.write(text.slice(0, 0, 1).slice(1, 0, 4),
                                     {.tokens = 8, .temperature = 0.0}, RandomStream(1, 1));
  const at::Tensor& want = expected_.at("gpt2.written");
  EXPECT_EQ(written, std::vector<std::int64_t>(want.data_ptr<std::int64_t>(),
                                               want.data_ptr<std::int64_t>() + want.numel()));
}

TEST_F(LanguageGolden, ReadingInPiecesIsReadingAtOnce) {
  const at::NoGradGuard no_grad;
  const models::Gpt2 network(source(), models::Gpt2Config::from_json(configs_.at("gpt2"), "gpt2"));
  const at::Tensor text = ids("gpt2.ids", {2, 11}, 0, 50);
  models::Gpt2Cache cache;
  std::vector<at::Tensor> pieces;
  for (const auto& [begin, end] : {std::pair{0, 3}, {3, 4}, {4, 9}, {9, 11}})
    pieces.push_back(network.forward(text.slice(1, begin, end), &cache));
  EXPECT_EQ(cache.length(), 11);
  expect_near("gpt2.logits", at::cat(pieces, 1));
}

class TextTokenizers : public LanguageGolden {
 protected:
  static std::vector<std::int64_t> numbers(const Json& list) {
    return list.get<std::vector<std::int64_t>>();
  }
};

TEST_F(TextTokenizers, WordPiecesEqualTokenizers) {
  const auto tokenizer =
      tokenizers::WordPieceTokenizer::open(kLanguageData / "tokenizers/wordpiece");
  for (const Json& row : configs_.at("tokens").at("wordpiece")) {
    const auto text = row.at("text").get<std::string>();
    if (row.contains("second")) {
      const auto pair = tokenizer.encode(text, row.at("second").get<std::string>(), 100);
      EXPECT_EQ(pair.ids, numbers(row.at("ids")));
      EXPECT_EQ(pair.types, numbers(row.at("types")));
      continue;
    }
    const tokenizers::EncodedText encoded = tokenizer.encode(text, 1000);
    EXPECT_EQ(encoded.ids, numbers(row.at("ids"))) << text;
    std::vector<tokenizers::TextPart> parts;
    for (const Json& part : row.at("parts")) parts.push_back({part[0], part[1]});
    EXPECT_EQ(encoded.parts, parts) << text;
  }
}

TEST_F(TextTokenizers, BytePairsEqualTokenizers) {
  const auto tokenizer = tokenizers::ByteBpeTokenizer::open(kLanguageData / "tokenizers/byte_bpe");
  for (const Json& row : configs_.at("tokens").at("byte_bpe")) {
    const auto text = row.at("text").get<std::string>();
    const tokenizers::EncodedText encoded = tokenizer.tokenize(text);
    EXPECT_EQ(encoded.ids, numbers(row.at("ids"))) << text;
    EXPECT_EQ(tokenizer.decode(encoded.ids), text);
    std::size_t at = 0;
    for (const tokenizers::TextPart& part : encoded.parts) {
      EXPECT_EQ(part.begin, at) << text;
      at = part.end;
    }
    EXPECT_EQ(at, text.size());
  }
}

// What is learnt is a vocabulary that the readers take, and that shortens its own texts.
TEST_F(TextTokenizers, VocabulariesAreLearnt) {
  const TemporaryFolder folder;
  const std::vector<std::string> texts = {"the cat sat on the mat", "the other cat", "that hat"};
  const auto lines = tokenizers::learn_wordpieces(texts, 40);
  EXPECT_EQ(lines, tokenizers::learn_wordpieces(texts, 40));
  EXPECT_LE(lines.size(), 40u);
  std::ofstream vocabulary(folder / "vocab.txt");
  for (const std::string& line : lines) vocabulary << line << "\n";
  vocabulary.close();
  const auto pieces = tokenizers::WordPieceTokenizer::open(folder.path());
  EXPECT_EQ(pieces.encode("the cat", 10).ids.size(), 4u);  // whole words and two marks

  const auto learnt = tokenizers::learn_byte_pairs(texts, 300, {"<s>", "<pad>", "</s>"});
  std::ofstream(folder / "vocab.json") << learnt.vocabulary;
  std::ofstream(folder / "merges.txt") << learnt.merges;
  const auto bytes = tokenizers::ByteBpeTokenizer::open(folder.path());
  EXPECT_EQ(bytes.tokenize("the cat").ids.size(), 2u);
  EXPECT_EQ(bytes.decode(bytes.tokenize("Ünseen words").ids), "Ünseen words");
  EXPECT_EQ(bytes.encode("the cat", 10).ids.size(), 4u);
  EXPECT_EQ(bytes.encode("the", "cat", 10).ids.size(), 7u);
}

}  // namespace
}  // namespace ringlet
