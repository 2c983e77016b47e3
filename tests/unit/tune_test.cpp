// Fine-tuning of networks beside diffusion: every task on a tiny network that begins at random.

#include <cmath>
#include <fstream>

#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/io/image.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/other_network.h"
#include "ringlet/tune/examples.h"
#include "ringlet/tune/labels.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"
#include "tests/tiny_tune.h"
#include "tests/tiny_vision.h"

namespace ringlet::tune {
namespace {

namespace fs = std::filesystem;

const fs::path kTokenizers = fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data/tokenizers";

class TuneTest : public testing::Test {
 protected:
  void text(const std::string& name, const std::string& content) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << content;
  }
  /// A folder with a config and the tokenizer of this kind.
  void network(const Json& config, const std::string& tokenizer = "") const {
    text("net/config.json", config.dump());
    if (!tokenizer.empty())
      for (const auto& entry : fs::directory_iterator(kTokenizers / tokenizer))
        fs::copy(entry.path(), folder_ / "net" / entry.path().filename(),
                 fs::copy_options::overwrite_existing);
  }
  static Json bert(const char* kind = "bert") {
    return {{"model_type", kind},
            {"vocab_size", 400},
            {"hidden_size", 16},
            {"num_hidden_layers", 1},
            {"num_attention_heads", 2},
            {"intermediate_size", 24},
            {"max_position_embeddings", 40},
            {"type_vocab_size", 2}};
  }
  void sections(int count, const std::string& name = "texts.jsonl") const {
    std::string lines;
    for (int i = 0; i < count; ++i)
      lines += i % 2 == 0 ? R"({"text": "the small cat is kept", "label": "cats"})"
                            "\n"
                          : R"({"text": "euros in the cafe", "label": "money"})"
                            "\n";
    text(name, lines);
  }
  TuneOptions options(const std::string& task, const std::string& data,
                      const std::string& out = "run") const {
    TuneOptions o;
    o.examples.task = task;
    o.examples.weights.device = test_device();
    o.examples.weights.dtype = test_precision();
    o.learning = adapt::parse_method("trm(rank=2)+lora(rank=2)");
    o.examples.model = folder_ / "net";
    o.examples.random_seed = 5;
    o.examples.length = 24;
    o.examples.data = folder_ / data;
    o.out = folder_ / out;
    o.seed = 3;
    o.batch_size = 4;
    o.trainer.steps = 6;
    o.trainer.learning_rate.peak = 1e-2;
    return o;
  }
  /// Trains all weights once, so that there is a checkpoint in "net".
  void make_base(TuneOptions o) const {
    o.learning = train::AllWeights{};
    o.out = folder_ / "base";
    Tune(o).run();
    fs::remove_all(folder_ / "net");
    fs::rename(folder_ / "base/model", folder_ / "net");
    fs::remove_all(folder_ / "base");
  }
  static double last(const Tune& run) { return run.scores().back().scores.front().value; }
  TemporaryFolder folder_;
};

TEST_F(TuneTest, TextsAreClassifiedAndTheHeadOfOtherClassesIsNew) {
  network(bert(), "wordpiece");
  sections(30);
  TuneOptions o = options("text-classification", "texts.jsonl");
  o.trainer.learning_rate.peak = 3e-3;
  o.trainer.steps = 40;
  make_base(o);
  const Json config = read_json_file(folder_ / "net/config.json");
  EXPECT_EQ(config.at("id2label").at("1"), "money");

  o.examples.random_seed.reset();
  const Tune same(o);  // its own classes: the head is adapted no more than other layers
  EXPECT_EQ(same.plan().new_layers, 0u);
  std::string lines;
  for (int i = 0; i < 20; ++i)
    lines += i % 3 == 0 ? "{\"text\": \"the small cat is kept\", \"label\": \"x\"}\n"
                        : "{\"text\": \"euros in the cafe\", \"label\": \"y\"}\n";
  text("other.jsonl", lines);
  o.examples.data = folder_ / "other.jsonl";
  o.trainer.learning_rate.peak = 2e-2;
  Tune other(o);
  EXPECT_EQ(other.plan().new_layers, 2u);
  EXPECT_EQ(other.plan().examples, 18u);
  ASSERT_TRUE(other.run());
  EXPECT_EQ(last(other), 1.0);
  EXPECT_TRUE(fs::exists(folder_ / "run/report.html"));
  EXPECT_EQ(file_content(folder_ / "run/scores.csv").substr(0, 19), "step,accuracy,loss\n");
}

TEST_F(TuneTest, AResumedRunIsTheUninterruptedOne) {
  network(bert("roberta"), "byte_bpe");
  sections(20);
  TuneOptions whole = options("text-classification", "texts.jsonl", "whole");
  whole.dropout.input = 0.1;
  whole.trainer.ema_decay = 0.9;
  ASSERT_TRUE(Tune(whole).run());
  TuneOptions parts = whole;
  parts.out = folder_ / "parts";
  EXPECT_FALSE(Tune(parts).run([](const train::StepResult& s) { return s.step < 3; }));
  parts.resume = true;
  Tune again(parts);
  EXPECT_EQ(again.plan().first_step, 3);
  ASSERT_TRUE(again.run());
  ASSERT_EQ(again.scores().size(), 2u);  // the one from before the interruption, too
  EXPECT_EQ(again.scores().front().step, 0);
  const auto a = io::load_tensors(folder_ / "whole/adapter.safetensors");
  const auto b = io::load_tensors(folder_ / "parts/adapter.safetensors");
  for (const auto& [name, tensor] : a) EXPECT_TRUE(tensor.equal(b.at(name))) << name;
  parts.trainer.learning_rate.peak = 1.0;
  EXPECT_THROW(Tune{parts}, Error);
  parts.resume = false;
  expect_error(ErrorCode::invalid_argument, "`resume`", [&] { Tune refused(parts); });
}

// As many examples as before, but others: what would follow were no longer the same run.
// A measured need; parts of a batch give the whole batch's gradients, and contrastive losses, which
// compare the texts of a batch, have none.
TEST_F(TuneTest, ALimitDividesTheBatchesOfMeans) {
  if (!test_device().is_cpu()) GTEST_SKIP() << "measured on the CPU";
  network(bert(), "wordpiece");
  sections(30);
  const auto limited = [this](const std::string& out, std::uint64_t limit, std::int64_t parts) {
    TuneOptions o = options("text-classification", "texts.jsonl", out);
    o.memory_limit = limit;
    o.savings.parts = parts;
    return o;
  };
  constexpr std::uint64_t kPlenty = std::uint64_t{1} << 40;
  const Tune plenty(limited("plenty", kPlenty, 1));
  EXPECT_GT(plenty.plan().expected_bytes, 0u);
  EXPECT_EQ(plenty.plan().extra_work, 0.0);
  EXPECT_EQ(Tune(limited("none", 0, 1)).plan().expected_bytes, 0u);  // nothing is measured
  expect_error(ErrorCode::out_of_memory, "nothing fits",
               [&] { Tune refused(limited("tight", 1 << 20, 1)); });

  Tune whole(limited("whole", 0, 1)), halves(limited("halves", 0, 2));
  EXPECT_TRUE(whole.run());
  EXPECT_TRUE(halves.run());
  const auto expected = io::load_tensors(whole.result());
  for (const auto& [name, tensor] : io::load_tensors(halves.result()))
    EXPECT_TRUE(at::allclose(tensor, expected.at(name), 1e-3, 1e-5)) << name;
}

TEST_F(TuneTest, AResumedRunFindsItsExamplesUnchanged) {
  network(bert("roberta"), "byte_bpe");
  sections(20);
  sections(10, "eval.jsonl");
  TuneOptions o = options("text-classification", "texts.jsonl");
  o.examples.eval_data = folder_ / "eval.jsonl";
  EXPECT_FALSE(Tune(o).run([](const train::StepResult& s) { return s.step < 3; }));
  o.resume = true;
  const auto expect_refusal = [&](const TuneOptions& changed, const char* words) {
    expect_error(ErrorCode::mismatch, words, [&] { Tune{changed}; });
  };
  const std::string texts = file_content(folder_ / "texts.jsonl"),
                    eval = file_content(folder_ / "eval.jsonl");
  std::string other = texts;
  other.replace(other.find("small"), 5, "large");
  text("texts.jsonl", other);
  expect_refusal(o, "data was");
  text("texts.jsonl", texts);
  text("eval.jsonl", other.substr(0, eval.size()));
  expect_refusal(o, "eval data was");
  text("eval.jsonl", eval);
  TuneOptions rounded = o;
  rounded.examples.weights.dtype = at::kBFloat16;
  expect_refusal(rounded, "precision was \"fp32\", now \"bf16\"");
  fs::rename(folder_ / "texts.jsonl", folder_ / "moved.jsonl");  // elsewhere, but the same
  o.examples.data = folder_ / "moved.jsonl";
  EXPECT_TRUE(Tune(o).run());
}

TEST_F(TuneTest, FingerprintsTellFoldersApart) {
  text("data/a/1.txt", "a cat");
  io::write_png(folder_ / "data/a/1.png", train::waves(1, 16, 16));
  const std::string before = fingerprint(folder_ / "data");
  text("data/a/notes.md", "no example");
  fs::create_directory_symlink(folder_ / "data", folder_ / "data/back");
  EXPECT_EQ(fingerprint(folder_ / "data"), before);
  text("data/a/1.txt", "a dog");
  EXPECT_NE(fingerprint(folder_ / "data"), before);
  text("data/a/1.txt", "a cat");
  EXPECT_EQ(fingerprint(folder_ / "data"), before);
  fs::rename(folder_ / "data/a", folder_ / "data/b");  // another class
  EXPECT_NE(fingerprint(folder_ / "data"), before);
  EXPECT_EQ(fingerprint(""), "");
}

TEST_F(TuneTest, QuestionsAreAnsweredFromTheirContext) {
  network(bert(), "wordpiece");
  std::string lines;
  for (int i = 0; i < 20; ++i)
    lines += R"({"question": "name?", "context": "the small cat is kept", "answer": "small cat"})"
             "\n";
  text("questions.jsonl", lines);
  TuneOptions o = options("question-answering", "questions.jsonl");
  o.trainer.steps = 60;
  o.learning = train::AllWeights{};
  Tune run(o);
  ASSERT_TRUE(run.run());
  EXPECT_EQ(last(run), 1.0);
  text("questions.jsonl", R"({"question": "q", "context": "the cat", "answer": "dog"})");
  expect_error(ErrorCode::bad_format, "questions.jsonl:1",
               [&] { Tune refused(options("question-answering", "questions.jsonl", "other")); });
}

TEST_F(TuneTest, TextsAreContinuedAndGpt2sMatricesAreMergedAsTheyAreStored) {
  network({{"model_type", "gpt2"},
           {"vocab_size", 400},
           {"n_embd", 16},
           {"n_layer", 1},
           {"n_head", 2},
           {"n_positions", 32}},
          "byte_bpe");
  std::string story;
  for (int i = 0; i < 200; ++i) story += "the small cat is kept in the cafe. ";
  text("story.txt", story);
  TuneOptions o = options("causal-lm", "story.txt");
  make_base(o);
  o.examples.random_seed.reset();
  o.trainer.steps = 20;
  o.targets.include = {"model.*attn.c_proj", "model.*attn.c_attn"};
  Tune run(o);
  ASSERT_TRUE(run.run());
  EXPECT_LT(last(run), run.scores().front().scores.front().value);

  // Over a base in narrow storage it learns, too; its matrices are those of the transposed layers.
  for (const nn::WeightStorage storage : {nn::WeightStorage::int8, nn::WeightStorage::nf4}) {
    TuneOptions narrow = o;
    narrow.out = folder_ / nn::weight_storage_name(storage);
    narrow.examples.weights.storage = storage;
    Tune over(narrow);
    ASSERT_TRUE(over.run());
    EXPECT_NE(over.scores().front().scores.front().value,
              run.scores().front().scores.front().value);
    EXPECT_LT(last(over), over.scores().front().scores.front().value);
    const std::string training = io::SafetensorsFile::open(narrow.out / "adapter.safetensors")
                                     ->metadata()
                                     .at("ringlet.training");
    EXPECT_NE(training.find(nn::weight_storage_name(storage)), std::string::npos) << training;
    narrow.learning = train::AllWeights{};
    narrow.targets = {};
    narrow.out = folder_ / "full";
    expect_error(ErrorCode::invalid_argument, "base_storage: `method=full`",
                 [&] { Tune refused(narrow); });
  }

  // The merged file alone does what the adapter does.
  const fs::path merged = folder_ / "merged";
  fs::create_directories(merged);
  const auto base = nn::FileStore::open(folder_ / "net/model.safetensors");
  const fs::path file = folder_ / "run/adapter.safetensors";
  const auto networks = pipeline::networks_of(base, {&file, 1});
  const auto adapter = adapt::load_adapter(file, {{"model", &networks.at("model")}});
  const adapt::AdapterSet* const set = &adapter.set;
  pipeline::merge_tensor_file(*base, {&set, 1}, merged / "model.safetensors");
  for (const char* name : {"config.json", "vocab.json", "merges.txt"})
    fs::copy(folder_ / "net" / name, merged / name);
  TuneOptions measured = options("causal-lm", "story.txt", "measured");
  measured.examples.model = merged;
  measured.examples.random_seed.reset();
  measured.trainer.steps = 1;
  measured.trainer.learning_rate.peak = 1e-9;
  Tune of_merged(measured);
  ASSERT_TRUE(of_merged.run());
  EXPECT_NEAR(of_merged.scores().front().scores.front().value, last(run), 1e-4 * last(run));
}

TEST_F(TuneTest, PicturesAreClassifiedByBothKindsOfNetwork) {
  for (const char* label : {"plain", "waves"}) {
    fs::create_directories(folder_ / "pictures" / label);
    for (int i = 0; i < 10; ++i)
      io::write_png(folder_ / "pictures" / label / (std::to_string(i) + ".png"),
                    label == std::string("plain")
                        ? io::Image{16, 16, std::vector<std::uint8_t>(16 * 16 * 3, 40)}
                        : train::waves(i, 16, 16));
  }
  Json vit = golden::tiny_vit_config();
  vit["image_size"] = 16;
  vit["patch_size"] = 8;
  const Json resnet = {{"model_type", "resnet"},
                       {"blocks", {1, 1, 1, 1}},
                       {"width", 4},
                       {"small_pictures", true},
                       {"image_size", 16}};
  for (const Json& config : {vit, resnet}) {
    network(config);
    const std::string out = config.at("model_type").get<std::string>();
    TuneOptions o = options("image-classification", "pictures", out);
    o.learning = train::AllWeights{};
    o.trainer.steps = 30;
    Tune run(o);
    ASSERT_TRUE(run.run());
    EXPECT_EQ(last(run), 1.0) << out;
    // Statistics of batch norms are as before: ones and zeros.
    if (out == "resnet") {
      EXPECT_TRUE(io::load_tensors(folder_ / "resnet/model/model.safetensors")
                      .at("bn1.running_var")
                      .eq(1.0)
                      .all()
                      .item<bool>());
    }
  }
  expect_error(ErrorCode::not_found, "one folder of pictures per class",
               [&] { Tune refused(options("image-classification", "net", "other")); });
  for (const auto& label : fs::directory_iterator(folder_ / "pictures"))
    fs::resize_file(label.path() / "3.png", 60);
  expect_error(ErrorCode::bad_format, "2 of 20 pictures cannot be used",
               [&] { Tune refused(options("image-classification", "pictures", "other")); });
}

TEST_F(TuneTest, RecommendationsLearnThroughTables) {
  std::string names, lines;
  for (int i = 0; i < 40; ++i) names += "item" + std::to_string(i) + "\n";
  for (int i = 0; i < 40; ++i)
    lines += i % 2 == 0
                 ? "{\"user\": \"u\", \"items\": [\"item0\", \"item1\", \"item2\"]}\n"
                 : "{\"user\": \"v\", \"items\": [\"item5\", \"item6\", \"item7\", \"new\"]}\n";
  text("net/items.txt", names);
  text("net/users.txt", "u\nv\n");
  text("baskets.jsonl", lines);
  for (const char* kind : {"two-tower", "matrix-factorisation"}) {
    network({{"model_type", kind}, {"items", 40}, {"users", 2}, {"width", 8}, {"inner_width", 8}});
    TuneOptions o = options("recommendation", "baskets.jsonl", kind);
    o.examples.random_seed = 8;
    o.targets.presets = {"embedding"};
    o.trainer.steps = 100;
    o.trainer.learning_rate.peak = 0.05;
    Tune run(o);
    EXPECT_EQ(run.plan().layers, 2u);
    ASSERT_TRUE(run.run());
    EXPECT_GT(last(run), run.scores().front().scores.front().value) << kind;
  }
  text("net/users.txt", "u\n");
  expect_error(ErrorCode::invalid_argument, "users.txt",
               [&] { Tune refused(options("recommendation", "baskets.jsonl", "other")); });
}

TEST_F(TuneTest, SpeechIsWrittenDown) {
  network({{"model_type", "wav2vec2"},
           {"vocab_size", 5},
           {"pad_token_id", 0},
           {"feat_extract_norm", "layer"},
           {"conv_dim", {8, 8}},
           {"conv_kernel", {10, 8}},
           {"conv_stride", {8, 8}},
           {"hidden_size", 16},
           {"num_hidden_layers", 1},
           {"num_attention_heads", 2},
           {"intermediate_size", 24},
           {"num_conv_pos_embeddings", 4},
           {"num_conv_pos_embedding_groups", 2}});
  text("net/vocab.json", R"({"<pad>": 0, "<unk>": 1, "|": 2, "A": 3, "B": 4})");
  const auto wave = [&](const std::string& name, double pitch) {
    std::string samples;
    for (int i = 0; i < 1600; ++i) {
      const auto value =
          static_cast<std::int16_t>(8000.0 * std::sin(2.0 * M_PI * pitch * i / 16000.0));
      samples += static_cast<char>(value & 0xFF);
      samples += static_cast<char>(value >> 8 & 0xFF);
    }
    const auto little = [](std::uint32_t value, int bytes) {
      std::string out;
      for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
      return out;
    };
    text("speech/" + name + ".wav", "RIFF" + little(36 + 3200, 4) + "WAVEfmt " + little(16, 4) +
                                        little(1, 2) + little(1, 2) + little(16000, 4) +
                                        little(32000, 4) + little(2, 2) + little(16, 2) + "data" +
                                        little(3200, 4) + samples);
  };
  for (int i = 0; i < 20; ++i) {
    const std::string name = "x" + std::to_string(10 + i);
    wave(name, i % 2 == 0 ? 300.0 + i : 1500.0 + i);
    text("speech/" + name + ".txt", i % 2 == 0 ? "a b" : "B");
  }
  TuneOptions o = options("ctc", "speech");
  o.learning = train::AllWeights{};
  o.trainer.steps = 150;
  Tune run(o);
  ASSERT_TRUE(run.run());
  EXPECT_LT(last(run), run.scores().front().scores.front().value);
  text("speech/x10.txt", "a c");
  expect_error(ErrorCode::invalid_argument, "lacks",
               [&] { Tune refused(options("ctc", "speech", "other")); });
}

TEST_F(TuneTest, CaptionsFindTheirPictures) {
  golden::write_tiny_clip(folder_ / "net");
  fs::create_directories(folder_ / "pictures");
  for (int i = 0; i < 20; ++i) {
    io::write_png(folder_ / "pictures" / (std::to_string(10 + i) + ".png"), train::waves(i % 3));
    text("pictures/" + std::to_string(10 + i) + ".txt",
         std::string(1, static_cast<char>('a' + i % 3)));
  }
  TuneOptions o = options("contrastive", "pictures");
  o.examples.random_seed.reset();
  Tune run(o);
  ASSERT_TRUE(run.run());
  EXPECT_EQ(run.scores().front().scores.size(), 4u);
  EXPECT_TRUE(fs::exists(folder_ / "run/adapter.safetensors"));
}

TEST_F(TuneTest, SaysWhatIsWrong) {
  network(bert(), "wordpiece");
  sections(20);
  TuneOptions o = options("dancing", "texts.jsonl");
  expect_error(ErrorCode::invalid_argument, "use causal-lm, contrastive", [&] { Tune refused(o); });
  o.examples.task = "text-classification";
  o.examples.length = 100;
  expect_error(ErrorCode::invalid_argument, "between 4 and 40", [&] { Tune refused(o); });
  o.examples.length = 24;
  o.examples.random_seed.reset();
  EXPECT_THROW(Tune refused(o), Error);  // no weights
  o.examples.random_seed = 1;
  o.targets.include = {"model.nothing"};
  expect_error(ErrorCode::invalid_argument, "matches no layer", [&] { Tune refused(o); });
  o.targets.include.clear();
  text("texts.jsonl", "{\"text\": \"a\"}\n");
  expect_error(ErrorCode::bad_format, "texts.jsonl:1", [&] { Tune refused(o); });
  text("texts.jsonl", "[1]\n");
  expect_error(ErrorCode::bad_format, "not a JSON object", [&] { Tune refused(o); });
  sections(3);
  expect_error(ErrorCode::invalid_argument, "too few examples", [&] { Tune refused(o); });
  sections(20);
  text("eval.jsonl", "{\"text\": \"a\", \"label\": \"unseen\"}\n");
  o.examples.eval_data = folder_ / "eval.jsonl";
  expect_error(ErrorCode::invalid_argument, "eval.jsonl:1: the class \"unseen\"",
               [&] { Tune refused(o); });
  o.examples.eval_data.clear();
  network({{"model_type", "llama"}});
  expect_error(ErrorCode::unsupported, "llama", [&] { Tune refused(o); });
  fs::remove(folder_ / "net/config.json");
  expect_error(ErrorCode::not_found, "bert, roberta", [&] { Tune refused(o); });
}

}  // namespace
}  // namespace ringlet::tune
