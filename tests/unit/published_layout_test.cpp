// Every layout in which networks are published is tuned, and merged into as it was.
#include "ringlet/models/published_layout.h"

#include <cmath>

#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/eval/feature_network.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/other_network.h"
#include "tests/expect_error.h"
#include "tests/golden/tiny_model.h"
#include "tests/published_networks.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"
#include "tests/tiny_tune.h"

namespace ringlet::tune {
namespace {

namespace fs = std::filesystem;
using namespace published;

const fs::path kTokenizers = fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data/tokenizers";

class PublishedLayouts : public testing::Test {
 protected:
  void file(const std::string& name, const std::string& content) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }
  void lines(const std::string& name, const std::string& even, const std::string& odd) const {
    std::string text;
    for (int i = 0; i < 20; ++i) text += (i % 3 == 0 ? even : odd) + "\n";
    file(name, text);
  }
  TuneOptions options(const std::string& task, const std::string& data) const {
    TuneOptions o;
    o.examples.task = task;
    o.learning = adapt::parse_method("lora(rank=1)");
    o.examples.model = folder_ / "net";
    o.examples.length = 16;
    o.examples.data = folder_ / data;
    o.out = folder_ / "run";
    o.seed = 3;
    o.batch_size = 4;
    o.trainer.steps = 3;
    o.trainer.learning_rate.peak = 1e-2;
    return o;
  }
  static std::vector<double> values(const ScoreRow& row) {
    std::vector<double> values;
    for (const Score& score : row.scores) values.push_back(score.value);
    return values;
  }

  /// Writes the folder, tunes and merges; the merged folder alone gives the scores that the adapter
  /// gave, and holds what the file held, changed in adapted layers alone. With a new head, names
  /// have `level` before them. Returns the scores before.
  std::vector<double> check(const std::string& layout, const TuneOptions& o, const Json& config,
                            const Shapes& shapes, const std::string& tokenizer = "",
                            const std::string& level = "") const {
    SCOPED_TRACE(layout);
    for (const char* name : {"net", "run", "merged", "again"}) fs::remove_all(folder_ / name);
    const auto stored = write(folder_ / "net", config, shapes);
    copy_beside(tokenizer);
    Tune run(o);
    EXPECT_TRUE(run.run());
    const fs::path adapter = folder_ / "run/adapter.safetensors", merged = folder_ / "merged";
    fs::create_directories(merged);
    const auto base = nn::FileStore::open(folder_ / "net/model.safetensors");
    const nn::ModuleIndex index = pipeline::with_other_names(pipeline::layers_of(base));
    const adapt::LoadedAdapter loaded = adapt::load_adapter(adapter, {{"model", &index}});
    const adapt::AdapterSet* const set = &loaded.set;
    pipeline::merge_tensor_file(*base, {&set, 1}, merged / "model.safetensors");
    for (const auto& entry : fs::directory_iterator(folder_ / "net"))
      if (entry.path().extension() != ".safetensors")
        fs::copy(entry.path(), merged / entry.path().filename());
    if (run.plan().new_layers > 0)
      std::ofstream(merged / "config.json") << loaded.info.network_config;
    expect_kept(stored, io::load_tensors(merged / "model.safetensors"), run.plan().new_layers > 0,
                level);

    TuneOptions measured = o;
    measured.examples.model = merged;
    measured.out = folder_ / "again";
    measured.trainer.steps = 1;
    measured.trainer.learning_rate.peak = 1e-12;
    Tune of_merged(measured);
    EXPECT_EQ(of_merged.plan().new_layers, 0u);
    EXPECT_TRUE(of_merged.run());
    const auto want = values(run.scores().back()), found = values(of_merged.scores().front());
    for (std::size_t i = 0; i < want.size(); ++i)
      EXPECT_NEAR(found[i], want[i], 1e-5 * std::abs(want[i]) + 1e-6);
    return values(run.scores().front());
  }

  void copy_beside(const std::string& tokenizer) const {
    if (tokenizer == "clip") return golden::write_tokenizer(folder_ / "net", "<|endoftext|>");
    if (tokenizer == "letters")
      return file("net/vocab.json", R"({"<pad>": 0, "<unk>": 1, "|": 2, "A": 3, "B": 4})");
    if (!tokenizer.empty())
      for (const auto& entry : fs::directory_iterator(kTokenizers / tokenizer))
        fs::copy(entry.path(), folder_ / "net" / entry.path().filename());
  }

  static void expect_kept(const std::map<std::string, at::Tensor>& stored,
                          const std::map<std::string, at::Tensor>& merged, bool new_head,
                          const std::string& level) {
    std::size_t changed = 0;
    for (const auto& [name, tensor] : stored) {
      const bool moved = new_head && !merged.contains(name);
      const auto found = merged.find(moved ? level + name : name);
      ASSERT_NE(found, merged.end()) << name;
      EXPECT_EQ(found->second.scalar_type(), tensor.scalar_type()) << name;
      changed += found->second.equal(tensor) ? 0 : 1;
    }
    EXPECT_GT(changed, 0u);
    if (!new_head) {
      EXPECT_EQ(merged.size(), stored.size());
    }
  }

  static void expect_equal(const std::vector<std::vector<double>>& all) {
    for (const auto& one : all)
      for (std::size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], all.front()[i], 1e-5);
  }

  TemporaryFolder folder_;
};

Json bert_config(const char* type) {
  Json config = {{"vocab_size", kWords},        {"hidden_size", kWidth},
                 {"num_hidden_layers", 1},      {"num_attention_heads", 2},
                 {"intermediate_size", kInner}, {"max_position_embeddings", kPlaces},
                 {"type_vocab_size", 2}};
  if (*type != '\0') config["model_type"] = type;
  return config;
}

TEST_F(PublishedLayouts, Bert) {
  const std::string words = "wordpiece", level = "bert.";
  lines("texts.jsonl", R"({"text": "the small cat is kept", "label": "cats"})",
        R"({"text": "euros in the cafe", "label": "money"})");
  const TuneOptions o = options("text-classification", "texts.jsonl");
  const Json config = bert_config("bert");
  std::vector<std::vector<double>> before;

  Shapes alone = bert("");  // sentence-transformers/all-MiniLM-L6-v2
  linear(alone, "pooler.dense", kWidth, kWidth);
  alone["embeddings.position_ids"] = {1, kPlaces};
  before.push_back(check("BertModel", o, config, alone, words, level));

  Shapes old = bert(level, /*old=*/true);  // bert-base-uncased, converted from TensorFlow in 2019
  linear(old, "bert.pooler.dense", kWidth, kWidth);
  pretraining_head(old, /*old=*/true);
  Json first = bert_config("");
  first.erase("type_vocab_size");
  first["architectures"] = {"BertForMaskedLM"};
  before.push_back(check("gamma and beta, no model_type", o, first, old, words));
  before.push_back(check("Google's bert_config.json", o, bert_config(""), old, words));

  Shapes pretrained = bert(level);
  linear(pretrained, "bert.pooler.dense", kWidth, kWidth);
  pretraining_head(pretrained);
  pretrained["cls.predictions.decoder.bias"] = {kWords};
  pretrained["bert.embeddings.position_ids"] = {1, kPlaces};
  before.push_back(check("BertForPreTraining", o, config, pretrained, words));
  expect_equal(before);

  Shapes masked = bert(level);  // no pooler: both layers of the head are new
  pretraining_head(masked);
  check("BertForMaskedLM", o, config, masked, words);
  Shapes tokens = bert(level);
  linear(tokens, "classifier", kWidth, 2);
  Json labelled = config;
  labelled["id2label"] = {{"0", "cats"}, {"1", "money"}};
  check("BertForTokenClassification", o, labelled, tokens, words);
  linear(tokens, "bert.pooler.dense", kWidth, kWidth);
  check("BertForSequenceClassification", o, labelled, tokens, words);
  labelled["id2label"] = {{"0", "a"}, {"1", "b"}};  // as many, but other classes
  check("BertForSequenceClassification of other classes", o, labelled, tokens, words);

  lines("questions.jsonl",
        R"({"question": "name?", "context": "the small cat is kept", "answer": "small cat"})",
        R"({"question": "where?", "context": "euros in the cafe", "answer": "cafe"})");
  const TuneOptions q = options("question-answering", "questions.jsonl");
  Shapes spans = bert(level);
  linear(spans, "qa_outputs", kWidth, 2);
  check("BertForQuestionAnswering", q, config, spans, words);
  check("BertModel, asked", q, config, alone, words, level);
}

TEST_F(PublishedLayouts, Roberta) {
  const std::string words = "byte_bpe", level = "roberta.";
  lines("texts.jsonl", R"({"text": "the small cat is kept", "label": "cats"})",
        R"({"text": "euros in the cafe", "label": "money"})");
  const TuneOptions o = options("text-classification", "texts.jsonl");
  std::vector<std::vector<double>> before;
  Shapes masked = bert(level);  // roberta-base
  masked["lm_head.bias"] = {kWords};
  linear(masked, "lm_head.dense", kWidth, kWidth);
  norm(masked, "lm_head.layer_norm");
  masked["lm_head.decoder.weight"] = {kWords, kWidth};
  masked["lm_head.decoder.bias"] = {kWords};
  linear(masked, "roberta.pooler.dense", kWidth, kWidth);
  masked["roberta.embeddings.position_ids"] = {1, kPlaces};
  Json first = bert_config("");
  first["architectures"] = {"RobertaForMaskedLM"};
  before.push_back(check("RobertaForMaskedLM without model_type", o, first, masked, words));
  Shapes alone = bert("");
  linear(alone, "pooler.dense", kWidth, kWidth);
  before.push_back(check("RobertaModel", o, bert_config("roberta"), alone, words, level));
  expect_equal(before);
  Shapes classes = bert(level);
  linear(classes, "classifier.dense", kWidth, kWidth);
  linear(classes, "classifier.out_proj", kWidth, 2);
  Json labelled = bert_config("roberta");
  labelled["id2label"] = {{"0", "cats"}, {"1", "money"}};
  check("RobertaForSequenceClassification", o, labelled, classes, words);
}

TEST_F(PublishedLayouts, Gpt2) {
  std::string story;
  for (int i = 0; i < 60; ++i) story += "the small cat is kept in the cafe. ";
  file("story.txt", story);
  const TuneOptions o = options("causal-lm", "story.txt");
  Json config = {{"vocab_size", kWords}, {"n_embd", kWidth},  {"n_layer", 1},
                 {"n_head", 2},          {"n_positions", 32}, {"n_ctx", 32}};
  std::vector<std::vector<double>> before;
  before.push_back(check("GPT2Model of 2019", o, config, gpt2("", true), "byte_bpe"));
  config["model_type"] = "gpt2";
  config["n_inner"] = nullptr;
  before.push_back(check("GPT2LMHeadModel", o, config, gpt2("transformer.", false), "byte_bpe"));
  Shapes tied = gpt2("transformer.", true);
  tied["lm_head.weight"] = {kWords, kWidth};
  before.push_back(check("with its head", o, config, tied, "byte_bpe"));
  Shapes scored = gpt2("transformer.", false);
  scored["score.weight"] = {3, kWidth};
  linear(scored, "multiple_choice_head.summary", kWidth, 1);
  before.push_back(check("with other heads", o, config, scored, "byte_bpe"));
  expect_equal(before);

  auto untied = io::load_tensors(folder_ / "net/model.safetensors");
  untied["lm_head.weight"] = untied["transformer.wte.weight"] * 2.0;
  io::save_tensors(folder_ / "net/model.safetensors", untied);
  fs::remove_all(folder_ / "run");
  expect_error(ErrorCode::unsupported, "lm_head.weight", [&] { Tune refused(o); });
}

class PublishedPictures : public PublishedLayouts {
 protected:
  PublishedPictures() {
    for (const char* label : {"a", "b"}) {
      fs::create_directories(folder_ / "pictures" / label);
      for (int i = 0; i < 10; ++i)
        io::write_png(folder_ / "pictures" / label / (std::to_string(i) + ".png"),
                      train::waves(*label == 'a' ? i : 20 + i, 16, 16));
    }
  }
};

TEST_F(PublishedPictures, Vit) {
  const TuneOptions o = options("image-classification", "pictures");
  Json config = {{"model_type", "vit"},        {"hidden_size", kWidth}, {"num_hidden_layers", 1},
                 {"num_attention_heads", 2},   {"image_size", 16},      {"patch_size", 8},
                 {"intermediate_size", kInner}};
  std::vector<std::vector<double>> before;
  Shapes alone = vit("");  // google/vit-base-patch16-224-in21k
  linear(alone, "pooler.dense", kWidth, kWidth);
  before.push_back(check("ViTModel", o, config, alone, "", "vit."));
  Shapes masked = vit("vit.");
  masked["vit.embeddings.mask_token"] = {1, 1, kWidth};
  linear(masked, "vit.pooler.dense", kWidth, kWidth);
  masked["decoder.0.weight"] = {192, kWidth, 1, 1};
  masked["decoder.0.bias"] = {192};
  before.push_back(check("ViTForMaskedImageModeling", o, config, masked));
  expect_equal(before);
  Shapes classes = vit("vit.");
  linear(classes, "classifier", kWidth, 2);
  config["id2label"] = {{"0", "a"}, {"1", "b"}};
  check("ViTForImageClassification", o, config, classes);
}

TEST_F(PublishedPictures, ResNet) {
  TuneOptions o = options("image-classification", "pictures");
  o.trainer.learning_rate.peak = 1e-3;
  const Json labels = {{"0", "a"}, {"1", "b"}};
  for (const bool bottleneck : {true, false}) {
    const Json torchvision = {{"model_type", "resnet"}, {"id2label", labels}};
    Json transformers = torchvision;
    transformers["layer_type"] = bottleneck ? "bottleneck" : "basic";
    transformers["embedding_size"] = 4;
    transformers["depths"] = {1, 1, 1, 1};
    transformers["hidden_sizes"] = bottleneck ? Json{16, 32, 64, 128} : Json{4, 8, 16, 32};
    std::vector<std::vector<double>> before;
    before.push_back(check("torchvision", o, torchvision,
                           resnet(torchvision_words(), bottleneck, /*counted=*/false)));
    before.push_back(check("timm", o, torchvision, resnet(torchvision_words(), bottleneck, true)));
    before.push_back(check("ResNetForImageClassification", o, transformers,
                           resnet(transformers_words(true), bottleneck, true)));
    expect_equal(before);
    check("ResNetModel", o, transformers, resnet(transformers_words(false), bottleneck, true), "",
          "resnet.");
  }
}

TEST_F(PublishedLayouts, Clip) {
  fs::create_directories(folder_ / "pictures");
  for (int i = 0; i < 20; ++i) {
    io::write_png(folder_ / "pictures" / (std::to_string(10 + i) + ".png"), train::waves(i % 3));
    file("pictures/" + std::to_string(10 + i) + ".txt",
         std::string(1, static_cast<char>('a' + i % 3)));
  }
  const TuneOptions o = options("contrastive", "pictures");
  golden::write_tokenizer(folder_ / "words", "<|endoftext|>");
  const auto words = static_cast<std::int64_t>(read_json_file(folder_ / "words/vocab.json").size());
  const Json side = {{"hidden_size", kWidth},
                     {"num_hidden_layers", 1},
                     {"num_attention_heads", 2},
                     {"intermediate_size", kInner}};
  Json config = {{"model_type", "clip"},
                 {"projection_dim", 12},
                 {"vision_config", side},
                 {"text_config", side}};
  config["vision_config"].update({{"image_size", 16}, {"patch_size", 8}});
  config["text_config"].update({{"vocab_size", words}, {"max_position_embeddings", 16}});
  Shapes both = clip_pictures("vision_model.");
  both += clip_texts("text_model.", words);
  both["logit_scale"] = {};
  both["text_projection.weight"] = {12, kWidth};
  both["visual_projection.weight"] = {12, kWidth};
  std::vector<std::vector<double>> before = {check("CLIPModel", o, config, both, "clip")};
  both["text_model.embeddings.position_ids"] = {1, 16};
  both["vision_model.embeddings.position_ids"] = {1, 5};
  before.push_back(check("CLIPModel before 4.31", o, config, both, "clip"));
  expect_equal(before);
}

TEST_F(PublishedLayouts, FeaturesAreTheSameInEveryLayout) {
  const auto features = [&](const Json& config, const Shapes& shapes) {
    fs::remove_all(folder_ / "net");
    write(folder_ / "net", config, shapes);
    return eval::FeatureNetwork::open(folder_ / "net").features({train::waves(1)});
  };
  Json config = {{"hidden_size", kWidth},
                 {"num_hidden_layers", 1},
                 {"num_attention_heads", 2},
                 {"image_size", 16},
                 {"patch_size", 8},
                 {"intermediate_size", kInner},
                 {"model_type", "clip_vision_model"}};
  config["architectures"] = {"CLIPVisionModel"};
  const at::Tensor clip = features(config, clip_pictures("vision_model."));
  EXPECT_TRUE(features(config, clip_pictures("")).equal(clip));  // from transformers 5.6 on
  Shapes projected = clip_pictures("vision_model.");
  projected["visual_projection.weight"] = {12, kWidth};
  config["architectures"] = {"CLIPVisionModelWithProjection"};
  config["projection_dim"] = 12;
  EXPECT_EQ(features(config, projected).size(1), 12);
  config["model_type"] = "vit";
  Shapes classes = vit("vit.");
  linear(classes, "classifier", kWidth, 2);
  EXPECT_TRUE(features(config, vit("")).equal(features(config, classes)));
}

TEST_F(PublishedLayouts, Wav2Vec2) {
  const auto little = [](std::uint32_t value, int bytes) {
    std::string out;
    for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
    return out;
  };
  for (int sound = 0; sound < 20; ++sound) {
    std::string samples;
    for (int i = 0; i < 800; ++i)
      samples += little(static_cast<std::uint16_t>(static_cast<std::int16_t>(
                            8000.0 * std::sin((sound % 2 == 0 ? 0.1 : 0.6) * i))),
                        2);
    const std::string name = "speech/x" + std::to_string(10 + sound);
    file(name + ".wav", "RIFF" + little(36 + 1600, 4) + "WAVEfmt " + little(16, 4) + little(1, 2) +
                            little(1, 2) + little(16000, 4) + little(32000, 4) + little(2, 2) +
                            little(16, 2) + "data" + little(1600, 4) + samples);
    file(name + ".txt", sound % 2 == 0 ? "a" : "b");
  }
  const TuneOptions o = options("ctc", "speech");
  const Json config = {{"model_type", "wav2vec2"},
                       {"vocab_size", 5},
                       {"pad_token_id", 0},
                       {"conv_dim", {8, 8}},
                       {"conv_kernel", {10, 8}},
                       {"conv_stride", {8, 8}},
                       {"hidden_size", kWidth},
                       {"num_hidden_layers", 1},
                       {"num_attention_heads", 2},
                       {"intermediate_size", kInner},
                       {"num_conv_pos_embeddings", 4},
                       {"num_conv_pos_embedding_groups", 2}};
  const auto checked = [&](const std::string& layout, const Shapes& shapes,
                           const std::string& level = "") {
    return check(layout, o, config, shapes, "letters", level);
  };
  std::vector<std::vector<double>> before;
  before.push_back(checked("Wav2Vec2Model", wav2vec2("", true), "wav2vec2."));
  Shapes pretrained = wav2vec2("wav2vec2.", false);  // facebook/wav2vec2-base
  pretrained["quantizer.codevectors"] = {1, 8, 4};
  linear(pretrained, "quantizer.weight_proj", 8, 8);
  linear(pretrained, "project_hid", kWidth, 8);
  linear(pretrained, "project_q", 8, 8);
  before.push_back(checked("Wav2Vec2ForPreTraining", pretrained));
  Shapes speaker = wav2vec2("wav2vec2.", true);
  for (const char* head : {"projector", "feature_extractor", "classifier", "tdnn.0.kernel"})
    linear(speaker, head, kWidth, kWidth);
  speaker["objective.weight"] = {kWidth, 2};
  before.push_back(checked("Wav2Vec2ForXVector", speaker));
  expect_equal(before);
  Shapes letters = wav2vec2("wav2vec2.", false);  // facebook/wav2vec2-base-960h
  linear(letters, "lm_head", kWidth, 5);
  checked("Wav2Vec2ForCTC", letters);
}

// What belongs to no published head is still said.
TEST_F(PublishedLayouts, OtherTensorsAreNamed) {
  lines("texts.jsonl", R"({"text": "the small cat is kept", "label": "cats"})",
        R"({"text": "euros in the cafe", "label": "money"})");
  Shapes more = bert("");
  more["adapter.weight"] = {3, 3};
  write(folder_ / "net", bert_config("bert"), more);
  copy_beside("wordpiece");
  expect_error(ErrorCode::mismatch, "\"adapter.weight\"",
               [&] { Tune refused(options("text-classification", "texts.jsonl")); });
  Shapes twice = bert("bert.");
  norm(twice, "bert.embeddings.LayerNorm", kWidth, /*old=*/true);
  write(folder_ / "net", bert_config("bert"), twice);
  expect_error(ErrorCode::bad_format, "twice",
               [&] { Tune refused(options("text-classification", "texts.jsonl")); });
}

TEST(PublishedNames, AdaptersFindLayersUnderEveryName) {
  const auto others = models::other_names(
      {"embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"});
  for (const char* level : {"bert.", "roberta."})
    EXPECT_EQ(others.at(level + std::string("encoder.layer.0.attention.self.query.weight")),
              "encoder.layer.0.attention.self.query.weight");
  EXPECT_TRUE(models::other_names({"some.weight"}).empty());
  // Both sides of CLIP are called so without their levels: that name says nothing.
  const auto sides = models::other_names(
      {"text_model.embeddings.token_embedding.weight", "text_model.encoder.layers.0.mlp.fc1.weight",
       "vision_model.embeddings.class_embedding", "vision_model.encoder.layers.0.mlp.fc1.weight"});
  EXPECT_FALSE(sides.contains("encoder.layers.0.mlp.fc1.weight"));
  const models::PublishedLayout layout("resnet", {"resnet.embedder.embedder.convolution.weight"});
  for (const char* name : {"resnet.encoder.stages.2.layers.11.layer.1.normalization.running_var",
                           "resnet.encoder.stages.0.layers.0.shortcut.convolution.weight",
                           "resnet.embedder.embedder.normalization.bias", "classifier.1.weight"}) {
    EXPECT_NE(layout.network_name(name), name);
    EXPECT_EQ(layout.class_of(layout.network_name(name)), name);
  }
  EXPECT_EQ(layout.network_name("resnet.encoder.stages.2.layers.11.layer.1.normalization.bias"),
            "layer3.11.bn2.bias");
}

// A base and what was fine-tuned from it are often files of different classes.
TEST_F(PublishedLayouts, FilesOfTwoClassesAreCompared) {
  Shapes alone = bert("");
  linear(alone, "pooler.dense", kWidth, kWidth);
  Shapes asked = bert("bert.");
  linear(asked, "qa_outputs", kWidth, 2);
  write(folder_ / "base", bert_config("bert"), alone);
  write(folder_ / "tuned", bert_config("bert"), asked);
  nn::ModuleIndex base =
      pipeline::layers_of(nn::FileStore::open(folder_ / "base/model.safetensors"));
  nn::ModuleIndex tuned =
      pipeline::layers_of(nn::FileStore::open(folder_ / "tuned/model.safetensors"));
  pipeline::match_names(base, tuned);
  EXPECT_EQ(base.tensors.size(), bert("").all.size());
  for (const auto& [name, tensor] : base.tensors) EXPECT_TRUE(tensor.equal(tuned.tensors.at(name)));
  EXPECT_EQ(base.tensors.size(), tuned.tensors.size());
  EXPECT_TRUE(tuned.layers.contains("encoder.layer.0.attention.self.query"));
}

}  // namespace
}  // namespace ringlet::tune
