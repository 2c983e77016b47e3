// `ringlet convert`, `merge --into-adapter`, `inspect --model` and adapters of other programs in
// `generate`, on the tiny model.
#include "ringlet/core/json.h"
#include "ringlet/io/safetensors.h"
#include "ringlet/io/tensor_file.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/tiny_training.h"

namespace ringlet::e2e {
namespace {

class Convert : public TinyProgram {
 protected:
  Convert() {
    write_model("sd1");
    train::write_pictures(folder_ / "pictures");
  }

  /// Trains an adapter for two steps.
  std::string adapter(const std::string& method, const std::string& name,
                      Arguments more = {}) const {
    Arguments all = {"--learning-rate", "0.1", "--quiet"};
    all.insert(all.end(), more.begin(), more.end());
    expect_success(training(method, "2", "run-" + name, all));
    return path("run-" + name) + "/adapter.safetensors";
  }

  ProgramResult convert(const std::string& from, const std::string& to, const std::string& out,
                        Arguments more = {}) const {
    Arguments all = {"convert", "--model", path("model"), "--adapter", from,
                     "--to",    to,        "--out",       path(out)};
    all.insert(all.end(), more.begin(), more.end());
    return run_program(all);
  }

  at::Tensor latents(const Arguments& adapters) const {
    Arguments all = {"generate", "--model",   path("model"),
                     "--prompt", "a dog",     "--steps",
                     "2",        "--sampler", "ddim",
                     "--seed",   "3",         "--output-type",
                     "latent",   "--out",     path("latents.safetensors"),
                     "--quiet"};
    all.insert(all.end(), adapters.begin(), adapters.end());
    fs::remove(path("latents.safetensors"));
    expect_success(all);
    return io::load_tensors(path("latents.safetensors")).at("latents").clone();
  }

  static void expect_close(const at::Tensor& a, const at::Tensor& b, double relative = 1e-4) {
    EXPECT_LE((a - b).abs().max().item<double>(), relative * b.abs().max().item<double>());
  }
};

// PEFT refuses a feed-forward layer that is no target.
// The error's advice holds for every verb that opens a model.
TEST_F(Convert, SingleFilesTakeATokenizer) {
  const std::string from = adapter("lora(rank=2)", "plain");
  const std::string file = write_model("sd1-file").string();
  fs::rename(folder_ / "tokenizer", folder_ / "words");
  const std::vector<Arguments> commands = {{"convert", "--model", file, "--adapter", from, "--to",
                                            "kohya", "--out", path("k.safetensors")},
                                           {"inspect", from, "--model", file},
                                           {"merge", "--into-adapter", "--model", file, "--adapter",
                                            from, "--out", path("both.safetensors")}};
  for (Arguments command : commands) {
    const ProgramResult result = run_program(command);
    EXPECT_EQ(result.status, 3) << command.front();
    EXPECT_NE(result.err.find("--tokenizer FOLDER"), std::string::npos) << result.err;
    command.insert(command.end(), {"--tokenizer", path("words")});
    expect_success(command);
  }
}

TEST_F(Convert, ScaledInputsAreTargetsForPeft) {
  const std::string own = adapter("diagonal", "inputs", {"--train-text-encoder"});
  EXPECT_EQ(convert(own, "peft", "peft").status, 0);
  for (const char* component : {"unet", "text_encoder"}) {
    const Json config = read_json_file(folder_ / "peft" / component / "adapter_config.json");
    const auto targets = config.at("target_modules").get<std::set<std::string>>();
    const auto scaled = config.at("feedforward_modules").get<std::set<std::string>>();
    EXPECT_FALSE(scaled.empty());
    EXPECT_TRUE(std::ranges::includes(targets, scaled)) << component << config.dump();
  }
}

TEST_F(Convert, EveryFormatGivesTheSamePictures) {
  const at::Tensor base = latents({});
  for (const auto& [method, formats] :
       std::vector<std::pair<std::string, std::vector<std::string>>>{
           {"lora(rank=2,alpha=3)", {"ringlet", "peft", "diffusers", "kohya", "lycoris"}},
           {"dora(rank=2)", {"ringlet", "peft", "diffusers", "kohya", "lycoris"}},
           {"oft(block=4)", {"peft"}},
           {"lokr(rank=2)", {"peft", "lycoris"}},
           {"loha(rank=2)", {"peft", "lycoris"}},
           {"glora(rank=2)", {"lycoris"}},
           {"vera(rank=4)", {"peft"}}}) {
    const std::string own = adapter(method, method);
    const at::Tensor expected = latents({"--adapter", own});
    EXPECT_GT((expected - base).abs().max().item<double>(), 1e-3) << method;
    for (const std::string& format : formats) {
      const std::string out = method + "." + format;
      const ProgramResult result = convert(own, format, out);
      ASSERT_EQ(result.status, 0) << result.err;
      EXPECT_EQ(result.out, path(out) + "\n");
      expect_close(latents({"--adapter", path(out)}), expected);
    }
  }
}

// One way for models, folders of one network and bare files; a strength may have an exponent.
TEST_F(Convert, EveryFormatMergesIntoABareFileAsIntoTheModel) {
  const std::string own = adapter("lora(rank=2,alpha=3)", "own");
  const std::string weights = "unet/diffusion_pytorch_model.safetensors";
  expect_success({"merge", "--model", path("model"), "--adapter", own + ":1e-3", "--no-check",
                  "--out", path("whole")});
  const auto expected = io::load_tensors(path("whole/" + weights));
  const auto expect_merged = [&](const std::string& adapter_file, const std::string& model,
                                 const std::string& out, const std::string& merged) {
    SCOPED_TRACE(adapter_file + " into " + model);
    expect_success({"merge", "--model", path(model), "--adapter", adapter_file + ":1e-03", "--out",
                    path(out)});
    const auto actual = io::load_tensors(path(merged));
    ASSERT_EQ(actual.size(), expected.size());
    for (const auto& [name, tensor] : expected)
      EXPECT_TRUE(at::equal(actual.at(name), tensor)) << name;
  };
  expect_merged(own, "model/" + weights, "bare.safetensors", "bare.safetensors");
  for (const std::string format : {"peft", "diffusers", "kohya", "lycoris"}) {
    const std::string out = "own." + format;
    ASSERT_EQ(convert(own, format, out).status, 0);
    expect_merged(path(out), "model/" + weights, "bare.safetensors", "bare.safetensors");
    const ProgramResult seen =
        run_program({"inspect", path(out), "--model", path("model/" + weights), "--json"});
    ASSERT_EQ(seen.status, 0) << seen.err;
    EXPECT_GT(Json::parse(seen.out).at("layers").get<int>(), 0);
    const ProgramResult again =
        run_program({"convert", "--model", path("model/" + weights), "--adapter", path(out), "--to",
                     "kohya", "--out", path("again." + format)});
    EXPECT_EQ(again.status, 0) << again.err;
  }
  expect_merged(path("own.kohya"), "model/unet", "network",
                "network/diffusion_pytorch_model.safetensors");
}

TEST_F(Convert, WhatAFormatHasNoFormForIsRefusedWithTheChoices) {
  const std::string own = adapter("trm(rank=2)+tr(rank=2)", "own");
  for (const std::string format : {"peft", "diffusers", "kohya", "lycoris"}) {
    const ProgramResult result = convert(own, format, "out");
    EXPECT_NE(result.status, 0);
    for (const char* words : {"has no form for trm", "--as lora", "--as diff", "merge"})
      EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
    EXPECT_FALSE(fs::exists(path("out")));
  }
  const at::Tensor expected = latents({"--adapter", own});
  ASSERT_EQ(convert(own, "kohya", "diff", {"--as", "diff"}).status, 0);
  expect_close(latents({"--adapter", path("diff")}), expected);
  const ProgramResult low = convert(own, "peft", "low", {"--as", "lora", "--rank", "64"});
  ASSERT_EQ(low.status, 0) << low.err;
  EXPECT_NE(low.out.find("of the change is lost"), std::string::npos) << low.out;
  expect_close(latents({"--adapter", path("low")}), expected);
  const ProgramResult chosen =
      convert(own, "diffusers", "chosen", {"--as", "lora", "--max-error", "0.1", "--json"});
  ASSERT_EQ(chosen.status, 0) << chosen.err;
  const Json json = Json::parse(chosen.out);
  EXPECT_LE(json.at("approximation").at("relative_error").get<double>(), 0.1);
}

TEST_F(Convert, SeveralAdaptersBecomeOne) {
  const std::string a = adapter("lora(rank=2)", "a"),
                    b = adapter("lora(rank=3)", "b", {"--targets", "all"});
  const at::Tensor expected = latents({"--adapter", a + ":0.7", "--adapter", b + ":-0.3"});
  expect_success({"merge", "--model", path("model"), "--adapter", a + ":0.7", "--adapter",
                  b + ":-0.3", "--into-adapter", "--out", path("both.safetensors")});
  expect_close(latents({"--adapter", path("both.safetensors")}), expected);
  const at::Tensor blocks = latents({"--adapter", a, "--block-strength", "unet.*=0.7"});
  expect_close(blocks, latents({"--adapter", a + ":0.7"}));
}

TEST_F(Convert, MetadataIsWhatWasAskedFor) {
  const std::string own = adapter("lora(rank=2)", "own");
  for (const auto& [level, fields] : std::map<std::string, std::vector<std::string>>{
           {"none", {}},
           {"minimum",
            {"ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args", "ss_v2",
             "ss_base_model_version", "sshs_model_hash", "sshs_legacy_hash",
             "modelspec.architecture"}}}) {
    ASSERT_EQ(convert(own, "kohya", level, {"--metadata", level}).status, 0);
    const auto metadata = io::SafetensorsFile::open(path(level))->metadata();
    EXPECT_EQ(metadata.empty(), fields.empty());
    for (const std::string& field : fields) EXPECT_TRUE(metadata.contains(field)) << field;
    if (fields.empty()) continue;
    EXPECT_EQ(metadata.at("ss_network_dim"), "2");
    EXPECT_EQ(metadata.at("sshs_legacy_hash"), "e3b0c442");  // of nothing: the file is small
  }
}

TEST_F(Convert, InspectSaysHowAnAdapterIsUnderstood) {
  const std::string own = adapter("dora(rank=2)", "own");
  ASSERT_EQ(convert(own, "kohya", "k.safetensors").status, 0);
  const ProgramResult result =
      expect_success({"inspect", path("k.safetensors"), "--model", path("model"), "--json"});
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json.at("dialect"), "kohya");
  EXPECT_NE(result.out.find("output rows"), std::string::npos) << result.out;
}

TEST_F(Convert, WrongCallsAreExplained) {
  const std::string own = adapter("lora(rank=2)", "own");
  const auto expect_failure = [&](const Arguments& more, const std::string& words,
                                  const std::string& to = "kohya") {
    const ProgramResult result = convert(own, to, "out", more);
    EXPECT_NE(result.status, 0);
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
    EXPECT_FALSE(fs::exists(path("out")));
  };
  expect_failure({}, "use ringlet, peft, diffusers, kohya, lycoris or comfyui", "onetrainer");
  expect_failure({"--as", "svd"}, "\"svd\" is not known");
  expect_failure({"--as", "lora"}, "--rank and --max-error");
  expect_failure({"--rank", "4"}, "--rank and --max-error");
  expect_failure({"--as", "lora", "--rank", "4", "--max-error", "0.1"}, "--rank and --max-error");
  expect_failure({"--metadata", "some"}, "use none, minimum or full");
  expect_failure({"--adapter", path("nothing")}, "does not exist");
  expect_failure({"--block-strength", "unet.nothing=1"}, "matches none");
  expect_failure({"--block-strength", "unet.*"}, "has no strength");
}

}  // namespace
}  // namespace ringlet::e2e
