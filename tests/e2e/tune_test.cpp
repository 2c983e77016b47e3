// `ringlet tune`, and the other verbs on what it makes.
#include <array>

#include "ringlet/core/json.h"
#include "ringlet/io/tensor_file.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/published_networks.h"

namespace ringlet::e2e {
namespace {

class TuneVerb : public TinyProgram {
 protected:
  TuneVerb() {
    fs::create_directories(folder_ / "net");
    std::ofstream(folder_ / "net/config.json")
        << R"({"model_type": "gpt2", "vocab_size": 400, "n_embd": 16, "n_layer": 1, "n_head": 2,
               "n_positions": 32})";
    const fs::path tokenizer =
        fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data/tokenizers/byte_bpe";
    for (const char* name : {"vocab.json", "merges.txt"})
      fs::copy(tokenizer / name, folder_ / "net" / name);
    std::ofstream story(folder_ / "story.txt");
    for (int i = 0; i < 100; ++i) story << "the small cat is kept in the cafe. ";
  }
  Arguments tune(const char* model_option, const std::string& model, const std::string& method,
                 const std::string& out) const {
    return {"tune",
            "--task",
            "causal-lm",
            "--length",
            "16",
            model_option,
            model,
            "--data",
            path("story.txt"),
            "--method",
            method,
            "--steps",
            "8",
            "--seed",
            "1",
            "--batch-size",
            "4",
            "--learning-rate",
            "1e-2",
            "--out",
            path(out)};
  }
};

TEST_F(TuneVerb, BaseAdapterMergeConvertExtractInspect) {
  expect_success(tune("--init", path("net"), "full", "base"));
  const std::string base = path("base/model");
  EXPECT_NE(expect_success({"inspect", base}).out.find("network of type gpt2"), std::string::npos);
  Arguments adapt = tune("--model", base, "lora(rank=2)", "run");
  adapt.emplace_back("--json");
  const Json said = parse_json(expect_success(adapt).out, "said");
  EXPECT_EQ(said.at("plan").at("layers"), 4);
  EXPECT_EQ(said.at("scores").size(), 2u);
  const double after = said.at("scores")[1].at("scores").at("perplexity");
  EXPECT_LT(after, said.at("scores")[0].at("scores").at("perplexity").get<double>());

  const std::string adapter = path("run/adapter.safetensors");
  expect_success({"merge", "--model", base, "--adapter", adapter, "--out", path("merged")});
  EXPECT_TRUE(fs::exists(folder_ / "merged/vocab.json"));
  expect_success(
      {"convert", "--model", base, "--adapter", adapter, "--to", "peft", "--out", path("peft")});
  EXPECT_NE(expect_success({"inspect", path("peft"), "--model", base}).out.find("4, "),
            std::string::npos);
  expect_success({"merge", "--model", base, "--adapter", path("peft"), "--out", path("from-peft")});
  const auto a = io::load_tensors(folder_ / "merged/model.safetensors");
  const auto b = io::load_tensors(folder_ / "from-peft/model.safetensors");
  for (const auto& [name, tensor] : a) EXPECT_TRUE(tensor.allclose(b.at(name))) << name;

  // Extracted from the merged network, the adapter does the same again.
  expect_success({"extract", "--base", base, "--tuned", path("merged"), "--method", "lora(rank=2)",
                  "--out", path("extracted.safetensors")});
  expect_success({"merge", "--model", base, "--adapter", path("extracted.safetensors"), "--out",
                  path("again")});
  const auto c = io::load_tensors(folder_ / "again/model.safetensors");
  for (const auto& [name, tensor] : a) EXPECT_TRUE(tensor.allclose(c.at(name), 1e-3, 1e-4)) << name;

  const Arguments measured = tune("--model", path("merged"), "lora(rank=1)", "measured");
  EXPECT_NE(expect_success(measured).out.find("perplexity"), std::string::npos);
}

TEST_F(TuneVerb, SentencesAreComparedTunedAndMerged) {
  published::Shapes shapes = published::bert("");
  published::linear(shapes, "pooler.dense", published::kWidth, published::kWidth);
  const Json config = {{"vocab_size", published::kWords},
                       {"hidden_size", published::kWidth},
                       {"num_hidden_layers", 1},
                       {"num_attention_heads", 2},
                       {"intermediate_size", published::kInner},
                       {"max_position_embeddings", published::kPlaces},
                       {"type_vocab_size", 2}};
  published::write(folder_ / "sentences", config, shapes);
  fs::copy(fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data/tokenizers/wordpiece/vocab.txt",
           folder_ / "sentences/vocab.txt");
  fs::create_directories(folder_ / "sentences/1_Pooling");
  std::ofstream(folder_ / "sentences/1_Pooling/config.json")
      << R"({"pooling_mode_mean_tokens": true})";
  std::ofstream(folder_ / "sentences/modules.json")
      << R"([{"path": "", "type": "sentence_transformers.models.Transformer"},
             {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}])";
  std::ofstream(folder_ / "sentences/pytorch_model.bin") << "unmerged";
  std::ofstream pairs(folder_ / "pairs.jsonl");
  for (int i = 0; i < 20; ++i)
    pairs << R"({"sentence1": "the small cat", "sentence2": "euros in the cafe", "score": )"
          << (i % 4) * 0.25 << "}\n";
  pairs.close();
  const auto cosine = [&](const std::string& model, const Arguments& more) {
    Arguments words = {"eval", "similarity", "--json", "--model", path(model)};
    words.insert(words.end(), more.begin(), more.end());
    words.insert(words.end(), {"the small cat", "euros in the cafe"});
    return parse_json(expect_success(words).out, "said").at("cosines")[0][1].get<double>();
  };
  const std::string adapter = path("run/adapter.safetensors");
  expect_success({"tune", "--task", "sentence-similarity", "--model", path("sentences"), "--data",
                  path("pairs.jsonl"), "--eval-data", path("pairs.jsonl"), "--method",
                  "lora(rank=2)", "--steps", "4", "--learning-rate", "1e-2", "--out", path("run")});
  expect_success(
      {"merge", "--model", path("sentences"), "--adapter", adapter, "--out", path("merged")});
  EXPECT_TRUE(fs::exists(folder_ / "merged/1_Pooling/config.json"));
  EXPECT_FALSE(fs::exists(folder_ / "merged/pytorch_model.bin"));
  const double tuned = cosine("sentences", {"--adapter", adapter});
  EXPECT_NE(tuned, cosine("sentences", {}));
  EXPECT_NEAR(tuned, cosine("merged", {}), 1e-5);

  // PEFT's adapter of BertModel, and one of a class with a head, fit both.
  expect_success({"convert", "--model", path("sentences"), "--adapter", adapter, "--to", "peft",
                  "--out", path("peft")});
  EXPECT_NEAR(cosine("sentences", {"--adapter", path("peft")}), tuned, 1e-5);
  std::map<std::string, at::Tensor> of_class;
  for (const auto& [name, tensor] : io::load_tensors(folder_ / "peft/adapter_model.safetensors"))
    of_class.emplace(
        "base_model.model.bert." + name.substr(std::string("base_model.model.").size()), tensor);
  io::save_tensors(folder_ / "peft/adapter_model.safetensors", of_class);
  EXPECT_NEAR(cosine("sentences", {"--adapter", path("peft")}), tuned, 1e-5);
  EXPECT_NE(run_program({"eval", "similarity", "--model", path("sentences"), "one"}).status, 0);
}

TEST_F(TuneVerb, SaysWhatIsWrongBeforeItBegins) {
  const auto fails = [](const Arguments& arguments, const std::string& words) {
    const ProgramResult result = run_program(arguments);
    EXPECT_NE(result.status, 0);
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
  };
  fails({"tune"}, "--task");
  fails(tune("--model", path("net"), "lora(rank=2)", "run"), "model.safetensors");
  fails(tune("--init", path("nothing"), "lora(rank=2)", "run"), "config.json");
  fails(tune("--init", path("net"), "lora(rank=0)", "run"), "rank");
  Arguments both = tune("--init", path("net"), "lora(rank=2)", "run");
  both.insert(both.end(), {"--model", path("net")});
  fails(both, "either --model or --init");
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

}  // namespace
}  // namespace ringlet::e2e
