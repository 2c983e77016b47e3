// `ringlet inspect`: what it says of models, files and texts.
#include "ringlet/core/json.h"
#include "ringlet/core/text.h"
#include "ringlet/tokenizers/clip_tokenizer.h"
#include "tests/e2e/tiny_program_test.h"

namespace ringlet::e2e {
namespace {

class Inspect : public TinyProgram {
 protected:
  static Json json_of(const Arguments& more) {
    Arguments all = {"inspect", "--json"};
    all.insert(all.end(), more.begin(), more.end());
    const ProgramResult result = expect_success(all);
    EXPECT_EQ(result.err, "");
    return parse_json(result.out, "stdout");
  }
  static std::string table_of(const std::string& path) {
    return expect_success({"inspect", path}).out;
  }
  static bool has(const std::string& text, const std::string& words) {
    return text.find(words) != std::string::npos;
  }
};

struct Kind {
  const char* model;
  const char* kind;
};

class InspectKind : public Inspect, public testing::WithParamInterface<Kind> {};

TEST_P(InspectKind, IsRecognised) {
  const std::string model = write_model(GetParam().model).string();
  const Json json = json_of({model});
  EXPECT_EQ(json.at("kind"), GetParam().kind);
  EXPECT_EQ(json.at("path"), model);
  EXPECT_TRUE(json.at("sampler").is_string());
  EXPECT_TRUE(json.at("notes").is_array());
  EXPECT_TRUE(json.at("metadata").is_object());
  std::set<std::string> parts;
  for (const Json& part : json.at("components")) {
    parts.insert(part.at("name").get<std::string>());
    for (const char* key : {"parameters", "tensors", "bytes"})
      EXPECT_GT(part.at(key).get<std::int64_t>(), 0) << key;
    EXPECT_FALSE(part.at("dtypes").empty());
  }
  for (const char* part : {"unet", "vae", "text_encoder"}) EXPECT_TRUE(parts.contains(part));
  const bool xl = std::string(GetParam().model).starts_with("sdxl");
  EXPECT_EQ(parts.contains("text_encoder_2"), xl);
}

INSTANTIATE_TEST_SUITE_P(Models, InspectKind,
                         testing::Values(Kind{"sd1", "Stable Diffusion 1 model folder"},
                                         Kind{"sd2", "Stable Diffusion 2 model folder"},
                                         Kind{"sdxl", "Stable Diffusion XL model folder"},
                                         Kind{"sd1-file", "Stable Diffusion 1 checkpoint"},
                                         Kind{"sd2-file",
                                              "Stable Diffusion 2 (v-prediction) checkpoint"},
                                         Kind{"sdxl-file", "Stable Diffusion XL checkpoint"}),
                         [](const auto& each) {
                           std::string name = each.param.model;
                           std::erase(name, '-');
                           return name;
                         });

TEST_F(Inspect, TheTableSaysTheSame) {
  const std::string table = table_of(write_model("sd1").string());
  for (const char* words : {"Stable Diffusion 1 model folder", "unet", "vae", "text_encoder",
                            "parameters", "F32", "sampler     ddim"})
    EXPECT_TRUE(has(table, words)) << words << "\n" << table;
}

TEST_F(Inspect, AComponentFolder) {
  const Json json = json_of({(write_model("sd1") / "unet").string()});
  EXPECT_EQ(json.at("kind"), "weights of one network");
  ASSERT_EQ(json.at("components").size(), 1u);
  EXPECT_EQ(json.at("components")[0].at("name"), "diffusion_pytorch_model.safetensors");
}

TEST_F(Inspect, AnAdapterFile) {
  const std::string layer = "lora_unet_down_blocks_0_attentions_0_proj_in.";
  io::save_tensors(folder_ / "lora.safetensors",
                   {{layer + "lora_down.weight", at::zeros({4, 32}, at::kHalf)},
                    {layer + "lora_up.weight", at::zeros({32, 4}, at::kHalf)}},
                   {{"ss_network_dim", "4"}});
  const Json json = json_of({path("lora.safetensors")});
  EXPECT_EQ(json.at("kind"), "LoRA adapter (kohya)");
  EXPECT_EQ(json.at("metadata").at("ss_network_dim"), "4");
  const std::string table = table_of(path("lora.safetensors"));
  for (const char* words : {"LoRA adapter (kohya)", "F16", "ss_network_dim"})
    EXPECT_TRUE(has(table, words)) << words << "\n" << table;
}

// A file from the net must not steer the terminal, nor forge lines of the table.
TEST_F(Inspect, ControlCharactersOfAFileAreShownAsCodes) {
  io::save_tensors(folder_ / "m.safetensors", {{"x", at::zeros({1})}},
                   {{"title",
                     "red\x1b[31m\n  kind  forged\x7f \xc2\x9b"
                     "1m caf\xc3\xa9"},
                    {"key\x1b]0;title\x07", "value"}});
  const std::string table = table_of(path("m.safetensors"));
  for (const char* raw : {"\x1b", "\x07", "\x7f", "\xc2\x9b", "\n  kind  forged"})
    EXPECT_FALSE(has(table, raw)) << table;
  EXPECT_TRUE(has(table, "red\\x1b[31m\\x0a  kind  forged\\x7f \\x9b1m caf\xc3\xa9")) << table;
  EXPECT_TRUE(has(table, "key\\x1b]0;title\\x07")) << table;
  const Json json = json_of({path("m.safetensors")});
  EXPECT_TRUE(json.at("metadata").contains("key\x1b]0;title\x07"));
}

TEST_F(Inspect, LongMetadataIsCutBetweenCharacters) {
  std::string text = "a";  // so that the cut falls into a two-byte character
  for (int i = 0; i < 200; ++i) text += "\xc3\xa9";
  io::save_tensors(folder_ / "m.safetensors", {{"x", at::zeros({1})}}, {{"title", text}});
  const std::string table = table_of(path("m.safetensors"));
  EXPECT_TRUE(is_utf8(table));
  EXPECT_TRUE(has(table, "--json shows all")) << table;
  EXPECT_EQ(json_of({path("m.safetensors")}).at("metadata").at("title"), text);
}

TEST_F(Inspect, TokensEqualTheTokenizers) {
  const fs::path model = write_model("sd1");
  const auto tokenizer = tokenizers::ClipTokenizer::open(model / "tokenizer");
  const std::string text = "A photo  of a CAF\xc3\x89, 4k!";
  EXPECT_EQ(json_of({model.string(), "--tokens", text}), Json::array({tokenizer.ids(text)}));
  EXPECT_EQ(json_of({(model / "tokenizer").string(), "--tokens", text}),
            Json::array({tokenizer.ids(text)}));
}

TEST_F(Inspect, TokensOfASingleFileAreThoseOfItsTokenizer) {
  const fs::path model = write_model("sd1-file");
  const Json want =
      Json::array({tokenizers::ClipTokenizer::open(folder_ / "tokenizer").ids("a cat")});
  EXPECT_EQ(json_of({model.string(), "--tokens", "a cat"}), want);  // the folder beside it
  fs::rename(folder_ / "tokenizer", folder_ / "elsewhere");
  EXPECT_EQ(json_of({model.string(), "--tokens", "a cat", "--tokenizer", path("elsewhere")}), want);
  const ProgramResult without = run_program({"inspect", model.string(), "--tokens", "a cat"});
  EXPECT_EQ(without.status, 3);
  EXPECT_TRUE(has(without.err, "does not carry its tokenizer")) << without.err;
}

// An option that would be ignored is refused by name.
TEST_F(Inspect, OptionsThatWouldBeIgnoredAreRefused) {
  const std::string file = write_model("sd1-file").string(), model = write_model("sd1").string();
  const auto refused = [](const Arguments& arguments, const std::string& option) {
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.status, 2) << option << result.out;
    EXPECT_TRUE(has(result.err, option)) << result.err;
  };
  refused({"inspect", file, "--tokenizer", path("tokenizer")}, "--tokenizer");
  refused({"inspect", model, "--tokens", "a", "--tokenizer", path("tokenizer")}, "--tokenizer");
  refused({"inspect", model, "--tokens", "a", "--model", model}, "--model");
  refused({"inspect", model, "--tokens", "a", "--variant", "fp16"}, "--variant");
  refused({"inspect", file, "--variant", "fp16"}, "--variant");
  refused({"generate", "--model", model, "--prompt", "a", "--tokenizer", path("tokenizer")},
          "--tokenizer");
}

TEST_F(Inspect, TheTableSaysWhatIsPredicted) {
  auto tensors = golden::single_file_tensors("sdxl");
  for (const char* marker : {"v_pred", "ztsnr"}) tensors[marker] = at::zeros({0});
  io::save_tensors(folder_ / "m.safetensors", tensors);
  const std::string table = table_of(path("m.safetensors"));
  for (const char* words :
       {"predicts    v_prediction (the tensor v_pred)",
        "schedule    1000 steps, betas scaled_linear 0.00085 to 0.012, zero terminal SNR (the "
        "tensor ztsnr)",
        "spacing     trailing", "sampler     euler"})
    EXPECT_TRUE(has(table, words)) << words << "\n" << table;
}

TEST_F(Inspect, EveryLineOfATokensFileKeepsItsPlace) {
  const fs::path model = write_model("sd1");
  const auto tokenizer = tokenizers::ClipTokenizer::open(model / "tokenizer");
  std::ofstream(folder_ / "t.txt") << "\xEF\xBB\xBF"
                                   << "a cat\n\na dog\r\nlast";
  Json want = Json::array();
  for (const char* line : {"a cat", "", "a dog", "last"}) want.push_back(tokenizer.ids(line));
  EXPECT_EQ(json_of({model.string(), "--tokens-file", path("t.txt")}), want);
}

TEST_F(Inspect, TheTokenTableSaysWhatIsCut) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "cat ";
  const ProgramResult result =
      expect_success({"inspect", write_model("sd1").string(), "--tokens", text + "\x1b[31m"});
  EXPECT_TRUE(has(result.out, "tokens with begin and end")) << result.out;
  EXPECT_TRUE(has(result.out, "too long: a prompt holds 77 tokens")) << result.out;
  EXPECT_FALSE(has(result.out, "\x1b"));
}

}  // namespace
}  // namespace ringlet::e2e
