// Sentences as vectors: folders of sentence-transformers, both losses, scores and wrong data.
#include <cmath>
#include <fstream>

#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/eval/correlation.h"
#include "ringlet/pipeline/other_network.h"
#include "ringlet/tune/sentences.h"
#include "tests/expect_error.h"
#include "tests/published_networks.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_tune.h"

namespace ringlet::tune {
namespace {

namespace fs = std::filesystem;

const fs::path kTokenizers = fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data/tokenizers";

class Sentences : public testing::Test {
 protected:
  Sentences() {
    const Json config = {{"model_type", "bert"},
                         {"vocab_size", published::kWords},
                         {"hidden_size", published::kWidth},
                         {"num_hidden_layers", 1},
                         {"num_attention_heads", 2},
                         {"intermediate_size", published::kInner},
                         {"max_position_embeddings", published::kPlaces}};
    published::Shapes shapes = published::bert("");
    published::linear(shapes, "pooler.dense", published::kWidth, published::kWidth);
    shapes["embeddings.position_ids"] = {1, published::kPlaces};
    published::write(folder_ / "net", config, shapes);
    fs::copy(kTokenizers / "wordpiece/vocab.txt", folder_ / "net/vocab.txt");
  }
  void file(const std::string& name, const std::string& content) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << content;
  }
  void modules(const std::string& pooling) const {
    file("net/modules.json",
         R"([{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
             {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
             {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}])");
    file("net/1_Pooling/config.json", pooling);
  }
  SentenceNetwork network() const {
    TaskOptions o;
    o.model = folder_ / "net";
    o.length = usual_length(o.model);
    return SentenceNetwork(o);
  }
  static at::Tensor vector(const SentenceNetwork& network, const std::string& text) {
    const tokenizers::EncodedText encoded = network.encode(text);
    return network.vectors({&encoded})[0];
  }
  TuneOptions options(const std::string& data) const {
    TuneOptions o;
    o.examples.task = "sentence-similarity";
    o.learning = adapt::parse_method("lora(rank=2)");
    o.examples.model = folder_ / "net";
    o.examples.data = folder_ / data;
    o.out = folder_ / "run";
    o.seed = 3;
    o.batch_size = 4;
    o.trainer.steps = 60;
    o.trainer.learning_rate.peak = 2e-2;
    return o;
  }
  static constexpr std::array kTexts{
      "the small cat is kept", "euros in the cafe", "we see small animals",
      "a line break",          "two spaces",        "they said he told"};
  static constexpr std::array kOthers{"they are pets",  "it costs 12.50",  "naive cats",
                                      "a tab and text", "its name is cat", "i'm told he'd say"};
  TemporaryFolder folder_;
};

TEST_F(Sentences, PoolingIsThatOfTheFolder) {
  const at::Tensor mean = vector(network(), "the small cat");
  EXPECT_NEAR(mean.norm().item<double>(), 1.0, 1e-6);
  EXPECT_EQ(usual_length(folder_ / "net"), 128);
  modules(R"({"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true})");
  file("net/sentence_bert_config.json", R"({"max_seq_length": 5, "do_lower_case": false})");
  EXPECT_EQ(usual_length(folder_ / "net"), 5);
  EXPECT_EQ(network().encode("the small cat is kept in the cafe").ids.size(), 5u);
  file("net/sentence_bert_config.json", R"({"max_seq_length": 512})");
  EXPECT_TRUE(vector(network(), "the small cat").equal(mean));
  std::vector<at::Tensor> others = {mean};
  for (const char* one : {R"({"pooling_mode_cls_token": true})", R"({"pooling_mode": "max"})"}) {
    modules(one);
    const at::Tensor other = vector(network(), "the small cat");
    for (const at::Tensor& known : others) EXPECT_FALSE(other.allclose(known));
    others.push_back(other);
  }
  modules(R"({"pooling_mode_mean_sqrt_len_tokens": true})");  // the length is 1 whatever the root
  EXPECT_TRUE(vector(network(), "the small cat").allclose(mean, 1e-5, 1e-6));

  // Padding has no part in it.
  const SentenceNetwork one = network();
  const auto brief = one.encode("a cat"), longer = one.encode("the small cat is kept in the cafe");
  EXPECT_TRUE(one.vectors({&brief, &longer})[0].allclose(vector(one, "a cat"), 1e-5, 1e-6));
}

TEST_F(Sentences, OtherModulesAreRefused) {
  const auto refused = [&](ErrorCode code, const char* words, const char* pooling) {
    modules(pooling);
    expect_error(code, words, [&] { network(); });
  };
  refused(ErrorCode::unsupported, "several",
          R"({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true})");
  refused(ErrorCode::unsupported, "lasttoken", R"({"pooling_mode_lasttoken": true})");
  refused(ErrorCode::unsupported, "\"weighted\"", R"({"pooling_mode": "weighted"})");
  refused(ErrorCode::unsupported, "names no pooling", R"({"word_embedding_dimension": 16})");
  file("net/modules.json", R"([{"path": "", "type": "sentence_transformers.models.Dense"}])");
  expect_error(ErrorCode::unsupported, "Dense", [&] { network(); });
  fs::remove(folder_ / "net/modules.json");
  file("net/sentence_bert_config.json", R"({"do_lower_case": true})");
  expect_error(ErrorCode::unsupported, "lowercases", [&] { network(); });
}

TEST_F(Sentences, PairsLearnToFindEachOther) {
  std::string pairs, scored;
  for (std::size_t i = 0; i < kTexts.size(); ++i) {
    const std::string first = kTexts[i], second = kOthers[i];
    pairs += Json{{"anchor", first}, {"positive", second}}.dump() + "\n";
    scored += Json{{"sentence1", first}, {"sentence2", second}, {"score", i % 2 == 0 ? 1.0 : -0.5}}
                  .dump() +
              "\n";
  }
  file("pairs.jsonl", pairs);
  file("scored.jsonl", scored);
  modules(R"({"pooling_mode_mean_tokens": true})");
  TuneOptions o = options("pairs.jsonl");
  o.examples.eval_data = o.examples.data;
  Tune run(o);
  EXPECT_EQ(run.plan().network, "bert, sentences, contrastive");
  ASSERT_TRUE(run.run());
  const auto after = run.scores().back().scores;
  EXPECT_EQ(after.front().name, "retrieval accuracy");
  EXPECT_GT(after.front().value, run.scores().front().scores.front().value);

  o.out = folder_ / "scored";
  o.examples.data = o.examples.eval_data = folder_ / "scored.jsonl";
  o.learning = train::AllWeights{};
  o.trainer.learning_rate.peak = 3e-3;
  Tune other(o);
  EXPECT_EQ(other.plan().network, "bert, sentences, regression");
  ASSERT_TRUE(other.run());
  EXPECT_EQ(other.scores().back().scores.front().name, "Spearman correlation");
  EXPECT_GT(other.scores().back().scores[1].value, 0.9);
  // What was tuned whole is a folder of sentences again.
  EXPECT_TRUE(fs::exists(folder_ / "scored/model/1_Pooling/config.json"));
  TaskOptions again;
  again.model = folder_ / "scored/model";
  EXPECT_TRUE(SentenceNetwork(again).index().tensors.contains("embeddings.LayerNorm.weight"));
}

// The adapter of a classifier, named with its level, and that of sentences fit the same network.
TEST_F(Sentences, AdaptersWithAndWithoutTheLevelFit) {
  std::string pairs;
  for (int i = 0; i < 10; ++i)
    pairs += Json{{"sentence1", kTexts[i % 6]}, {"sentence2", kTexts[i % 5]}}.dump() + "\n";
  file("pairs.jsonl", pairs);
  TuneOptions o = options("pairs.jsonl");
  o.trainer.steps = 2;
  ASSERT_TRUE(Tune(o).run());
  const SentenceNetwork network = this->network();
  const nn::ModuleIndex index = pipeline::with_other_names(network.index());
  const adapt::Components components = {{"model", &index}};
  const at::Tensor before = vector(network, "the small cat");
  adapt::AdapterSet set = adapt::load_adapter(folder_ / "run/adapter.safetensors", components).set;
  EXPECT_EQ(set.entries().front().target.full_name(),
            "model.encoder.layer.0.attention.output.dense");
  set.attach();
  const at::Tensor after = vector(network, "the small cat");
  set.detach();
  EXPECT_FALSE(after.allclose(before));
  EXPECT_TRUE(index.layers.at("bert.encoder.layer.0.output.dense") ==
              index.layers.at("encoder.layer.0.output.dense"));
}

TEST_F(Sentences, SayWhatIsWrong) {
  const auto refused = [&](ErrorCode code, const char* words, const std::string& data,
                           const std::string& loss = "") {
    file("pairs.jsonl", data);
    TuneOptions o = options("pairs.jsonl");
    o.examples.eval_data = o.examples.data;
    o.examples.loss = loss;
    expect_error(code, words, [&] { Tune one(o); });
  };
  const std::string pair = R"({"sentence1": "a", "sentence2": "b"})"
                           "\n";
  const std::string scored = R"({"sentence1": "a", "sentence2": "b", "score": 4})"
                             "\n";
  const std::string low = R"({"sentence1": "a", "sentence2": "b", "score": 0.5})"
                          "\n";
  refused(ErrorCode::bad_format, "\"sentence2\"", R"({"sentence1": "a"})");
  refused(ErrorCode::bad_format, "pairs.jsonl:2", pair + low);
  refused(ErrorCode::bad_format, "divide those from 0 to 5", scored + low);
  refused(ErrorCode::invalid_argument, "has no score", pair, "regression");
  refused(ErrorCode::invalid_argument, "every pair as matching", low, "contrastive");
  refused(ErrorCode::invalid_argument, "contrastive or regression", pair, "triplet");
  refused(ErrorCode::invalid_argument, "the same score", low + low);
  TuneOptions o = options("pairs.jsonl");
  o.examples.task = "causal-lm";
  o.examples.loss = "regression";
  expect_error(ErrorCode::invalid_argument, "chooses nothing", [&] { Tune one(o); });
}

// numpy's corrcoef, of the numbers and of their ranks.
TEST(Correlation, IsThatOfTheBooks) {
  const std::vector<double> a = {1, 2, 2, 4, 7}, b = {0.1, 0.4, 0.3, 0.2, 3.0};
  EXPECT_NEAR(eval::pearson(a, b), 0.8903421994360566, 1e-12);
  EXPECT_NEAR(eval::spearman(a, b), 0.6668859288553501, 1e-12);
  EXPECT_EQ(eval::spearman(a, a), 1.0);
  EXPECT_EQ(eval::pearson(a, std::vector<double>(5, 2.0)), 0.0);
  expect_error(ErrorCode::mismatch, "beside", [&] { eval::pearson(a, std::vector<double>(4)); });
  expect_error(ErrorCode::invalid_argument, "two numbers",
               [] { eval::pearson(std::vector<double>(1), std::vector<double>(1)); });
}

}  // namespace
}  // namespace ringlet::tune
