// `ringlet extract` from two models on disk to an adapter, on the tiny models.
#include "ringlet/core/json.h"
#include "ringlet/io/tensor_file.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/e2e/wrong_input.h"
#include "tests/tiny_training.h"

namespace ringlet::e2e {
namespace {

constexpr const char* kUnet = "unet/diffusion_pytorch_model.safetensors";
constexpr std::size_t kAttentionLayers = 32;

/// Adds numbers to the tensors of a file whose names contain a word.
void change(const fs::path& file, const std::string& word, double size = 0.05) {
  auto tensors = io::load_tensors(file);
  std::map<std::string, at::Tensor> changed;
  for (const auto& [name, tensor] : tensors)
    changed[name] = name.find(word) == std::string::npos
                        ? tensor.clone()
                        : tensor + size * golden::uniform(name, tensor.sizes().vec());
  tensors.clear();  // the file is mapped
  io::save_tensors(file, changed);
}

class Extract : public TinyProgram {
 protected:
  Extract() {
    write_model("sd1");
    fs::copy(folder_ / "model", folder_ / "tuned", fs::copy_options::recursive);
  }

  Arguments arguments(const Arguments& more) const {
    Arguments all = {"extract", "--base", path("model"), "--tuned", path("tuned")};
    if (std::ranges::find(more, "--out") == more.end())
      all.insert(all.end(), {"--out", path("a.safetensors")});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  Json extract(const Arguments& more) const {
    Arguments all = arguments(more);
    all.emplace_back("--json");
    const ProgramResult result = expect_success(all);
    EXPECT_EQ(result.err, "");
    return parse_json(result.out, "stdout");
  }

  /// Trains an adapter for a step with a large rate and merges it: tuned becomes the merged model.
  void merge_trained(const std::string& method) const {
    train::write_pictures(folder_ / "pictures");
    expect_success({"train",
                    "--model",
                    path("model"),
                    "--instance-images",
                    path("pictures"),
                    "--instance-prompt",
                    "a cat",
                    "--method",
                    method,
                    "--steps",
                    "2",
                    "--learning-rate",
                    "0.05",
                    "--resolution",
                    "16",
                    "--sample-images",
                    "1",
                    "--sample-steps",
                    "1",
                    "--out",
                    path("run"),
                    "--seed",
                    "1",
                    "--quiet"});
    fs::remove_all(folder_ / "tuned");
    expect_success({"merge", "--model", path("model"), "--adapter", path("run/adapter.safetensors"),
                    "--out", path("tuned"), "--no-check"});
  }

  static void expect_words(const std::string& text, const std::vector<std::string>& words) {
    for (const std::string& word : words)
      EXPECT_NE(text.find(word), std::string::npos) << "lacks \"" << word << "\":\n" << text;
  }
};

TEST_F(Extract, HelpShowsEveryOption) {
  const ProgramResult result = expect_success({"extract", "--help"});
  expect_words(result.out, {"--base", "--tuned", "--out", "--method", "--budget", "--max-error",
                            "--compare", "--budgets", "--targets", "--steps", "Example"});
  expect_words(expect_success({"--help"}).out, {"extract"});
}

TEST_F(Extract, AMergedLowRankComesBack) {
  merge_trained("lora(rank=2)");
  const Json json = extract({"--method", "lora(rank=2)"});
  EXPECT_LT(json.at("total").at("relative_error"), 1e-3);
  EXPECT_EQ(json.at("total").at("closed_form"), true);
  EXPECT_NEAR(json.at("share").get<double>(), 1.0, 1e-9);
  EXPECT_EQ(json.at("layers").size(), kAttentionLayers);
  // The adapter does what the merged model does: merged, it gives the same weights.
  expect_success({"merge", "--model", path("model"), "--adapter", path("a.safetensors"), "--out",
                  path("again"), "--no-check"});
  const auto wanted = io::load_tensors(folder_ / "tuned" / kUnet);
  const auto found = io::load_tensors(folder_ / "again" / kUnet);
  const auto base = io::load_tensors(folder_ / "model" / kUnet);
  bool differs = false;
  for (const auto& [name, tensor] : wanted) {
    EXPECT_LT((found.at(name) - tensor).abs().max().item<double>(), 1e-5) << name;
    differs = differs || !at::equal(base.at(name), tensor);
  }
  EXPECT_TRUE(differs);
}

TEST_F(Extract, AMergedTransformComesBackBetterWithATransform) {
  merge_trained("oft(block=4)");
  EXPECT_LT(extract({"--method", "oft(block=4)"}).at("total").at("relative_error"), 0.01);
  EXPECT_GT(extract({"--method", "lora(rank=1)"}).at("total").at("relative_error"), 0.1);
}

TEST_F(Extract, ATableAndTheFile) {
  change(folder_ / "tuned" / kUnet, "attn1.to_q.weight");
  const ProgramResult result =
      expect_success(arguments({"--method", "lora(rank=1)", "--layers", "1"}));
  expect_words(result.out, {"worst first", "attn1.to_q", "more (--layers 0 shows all)", "total of",
                            path("a.safetensors")});
  expect_words(result.err, {"selected layers differ", "100.0 %", "fitting"});
  expect_words(expect_success({"inspect", path("a.safetensors")}).out, {"lora"});
}

TEST_F(Extract, OnlyLayersThatDifferGetAnAdapter) {
  change(folder_ / "tuned" / kUnet, "attn1.to_q.weight");
  change(folder_ / "tuned" / kUnet, "conv_in.weight");
  const Json json = extract({"--method", "diff"});
  for (const Json& layer : json.at("layers"))
    EXPECT_NE(layer.at("layer").get<std::string>().find("attn1.to_q"), std::string::npos);
  EXPECT_EQ(json.at("layers").size() + json.at("unchanged").size(), kAttentionLayers);
  EXPECT_LT(json.at("share"), 1.0);
  EXPECT_LT(json.at("total").at("relative_error"), 1e-6);
  const Json all = extract({"--method", "diff", "--targets", "all"});
  EXPECT_NEAR(all.at("share").get<double>(), 1.0, 1e-9);
}

TEST_F(Extract, TheSmallestRanksForAnError) {
  change(folder_ / "tuned" / kUnet, "attn1.to_", 0.05);
  const Json loose = extract({"--method", "lora", "--max-error", "0.6"});
  const Json tight = extract({"--method", "lora", "--max-error", "0.05"});
  for (const auto& [json, error] : {std::pair{loose, 0.6}, std::pair{tight, 0.05}})
    for (const Json& layer : json.at("layers")) EXPECT_LE(layer.at("relative_error"), error);
  EXPECT_LT(loose.at("total").at("parameters"), tight.at("total").at("parameters"));
  // Ranks may differ, and the file knows: it can be used again.
  expect_success({"merge", "--model", path("model"), "--adapter", path("a.safetensors"), "--out",
                  path("again"), "--no-check"});
}

TEST_F(Extract, ABudget) {
  change(folder_ / "tuned" / kUnet, "attn1.to_q.weight");
  const Json json = extract({"--method", "lora", "--budget", "2k"});
  EXPECT_LE(json.at("total").at("parameters"), 2000);
  EXPECT_GT(json.at("total").at("parameters"), 500);
}

TEST_F(Extract, AComparisonWritesATableAndAPicture) {
  change(folder_ / "tuned" / kUnet, "attn1.to_q.weight");
  const ProgramResult result =
      expect_success(arguments({"--compare", "lora, trm(rank=1,init=paper)+lora, oft", "--budgets",
                                "1k,2k", "--out", path("out"), "--steps", "30"}));
  expect_words(result.out, {"parameters", "lora(", "trm(", "oft(", "compare.csv", "compare.png"});
  EXPECT_EQ(names_in(folder_ / "out"), (std::set<std::string>{"compare.csv", "compare.png"}));
  const std::string csv = read_bytes(folder_ / "out/compare.csv");
  EXPECT_TRUE(csv.starts_with("curve,method,budget,parameters,relative_error,")) << csv;
  EXPECT_GE(std::ranges::count(csv, '\n'), 5) << csv;
  EXPECT_EQ(io::read_image(folder_ / "out/compare.png").width, 960);
}

TEST_F(Extract, AComparisonAsJson) {
  change(folder_ / "tuned" / kUnet, "attn1.to_q.weight");
  const Json json =
      extract({"--compare", "lora", "--budgets", "4k,1,1k", "--out", path("out"), "--steps", "30"});
  ASSERT_EQ(json.at("fits").size(), 2u);
  EXPECT_LT(json.at("fits").at(1).at("relative_error"), json.at("fits").at(0).at("relative_error"));
  EXPECT_EQ(json.at("left_out").size(), 1u);
}

TEST_F(Extract, OtherFilesByTensorName) {
  io::save_tensors(folder_ / "a0.safetensors", {{"fc.weight", golden::weight("a", {12, 10})},
                                                {"fc.bias", golden::uniform("b", {12})},
                                                {"steps", at::ones({1}, at::kLong)}});
  fs::copy(folder_ / "a0.safetensors", folder_ / "a1.safetensors");
  change(folder_ / "a1.safetensors", "fc.");
  const Arguments files = {"--base", path("a0.safetensors"), "--tuned", path("a1.safetensors")};
  Arguments all = {"extract", "--method", "diff+bias", "--out", path("d.safetensors")};
  all.insert(all.end(), files.begin(), files.end());
  expect_success(all);
  expect_success({"merge", "--model", path("a0.safetensors"), "--adapter", path("d.safetensors"),
                  "--out", path("m.safetensors")});
  const auto merged = io::load_tensors(folder_ / "m.safetensors");
  for (const auto& [name, tensor] : io::load_tensors(folder_ / "a1.safetensors"))
    EXPECT_LT((merged.at(name) - tensor).abs().max().item<double>(), 1e-6) << name;
}

/// Stores a file's floating-point tensors in another type.
void store_as(const fs::path& file, at::ScalarType type) {
  auto tensors = io::load_tensors(file);
  std::map<std::string, at::Tensor> stored;
  for (const auto& [name, tensor] : tensors)
    stored[name] = tensor.is_floating_point() ? tensor.to(type) : tensor.clone();
  tensors.clear();  // the file is mapped
  io::save_tensors(file, stored);
}

TEST_F(Extract, RoundingAloneIsNotLearnt) {
  // One layer of the tuned model has learnt something; all of it is stored in another type.
  for (const auto& [changed, type, words] :
       {std::tuple{"tuned", at::kBFloat16, "fp32 against bf16"},
        std::tuple{"model", at::kHalf, "fp16 against fp32"}}) {
    fs::remove_all(folder_ / "tuned");
    fs::remove_all(folder_ / "model");
    golden::write_folder(folder_ / "model", "sd1");
    fs::copy(folder_ / "model", folder_ / "tuned", fs::copy_options::recursive);
    change(folder_ / "tuned" / kUnet, "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
           0.3);
    store_as(folder_ / changed / kUnet, type);
    const Json json = extract({"--method", "diff", "--targets", "all"});
    ASSERT_EQ(json.at("layers").size(), 1u) << words;
    EXPECT_GT(json.at("rounded").size(), kAttentionLayers) << words;
    EXPECT_EQ(json.at("types"), words);
    EXPECT_GT(json.at("rounding"), 0.0);
    EXPECT_LT(json.at("rounding"), 0.01);
    EXPECT_EQ(json.at("share"), 1.0) << "the rounded layers and vectors are no change";
    expect_words(expect_success(arguments({"--method", "lora(rank=1)"})).err,
                 {"1 of 32 selected layers differ", "31 more differ by rounding alone", words,
                  "are skipped", "rounding (", "of the squared difference that is fitted"});
  }
}

TEST_F(Extract, OtherFilesInOtherTypes) {
  const auto layers = [](at::ScalarType type, double learnt) {
    const at::Tensor a = golden::weight("a", {12, 10}).to(at::kDouble) / 3.0,
                     b = golden::weight("b", {12, 10}).to(at::kDouble) / 3.0;
    const at::Tensor bias = golden::uniform("bias", {12}).to(at::kDouble) / 3.0;
    return std::map<std::string, at::Tensor>{
        {"a.weight", a.to(type)},
        {"a.bias", bias.to(type)},
        {"b.weight", (b + learnt * golden::uniform("learnt", {12, 10})).to(type)},
        {"b.bias", bias.to(type)}};
  };
  const fs::path base = folder_ / "base.safetensors", tuned = folder_ / "other.safetensors";
  const Arguments command = {
      "extract", "--base",   base.string(), "--tuned", tuned.string(),
      "--json",  "--method", "diff+bias",   "--out",   path("d.safetensors")};
  for (const auto& [one, two] :
       {std::pair{at::kBFloat16, at::kFloat}, std::pair{at::kFloat, at::kHalf},
        std::pair{at::kHalf, at::kBFloat16}, std::pair{at::kDouble, at::kFloat},
        std::pair{at::kFloat, at::kDouble}, std::pair{at::kFloat8_e4m3fn, at::kHalf}}) {
    io::save_tensors(base, layers(one, 0.0));
    io::save_tensors(tuned, layers(two, 0.3));
    const Json json = parse_json(expect_success(command).out, "stdout");
    ASSERT_EQ(json.at("layers").size(), 1u) << json;
    EXPECT_EQ(json.at("layers").at(0).at("layer"), "model.b") << json;
    EXPECT_EQ(json.at("rounded"), Json::array({"model.a"})) << json;
    const auto found = io::load_tensors(path("d.safetensors"));
    for (const auto& [name, tensor] : found) {
      if (name.find("bias") == std::string::npos) continue;
      EXPECT_EQ(tensor.abs().max().item<double>(), 0.0) << name << ": rounding was learnt";
    }
    io::save_tensors(tuned, layers(two, 0.0));
    const ProgramResult result = run_program(command);
    EXPECT_EQ(result.status, 2) << result.err;
    expect_words(result.out, {"other.safetensors", "by rounding alone", " against "});
  }
}

Arguments extraction(const Arguments& more) {
  Arguments all = {"extract", "--base", "@/model", "--tuned", "@/tuned"};
  if (std::ranges::find(more, "--out") == more.end())
    all.insert(all.end(), {"--out", "@/out.safetensors"});
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

void same_model(const fs::path& folder) { golden::write_folder(folder / "tuned", "sd1"); }

void changed_model(const fs::path& folder) {
  same_model(folder);
  change(folder / "tuned" / kUnet, "conv_in.weight");
}

void change_shape(const fs::path& folder) {
  io::save_tensors(folder / "a.safetensors", {{"x.fc.weight", at::zeros({4, 4})}});
  io::save_tensors(folder / "b.safetensors", {{"x.fc.weight", at::zeros({4, 5})}});
  io::save_tensors(folder / "c.safetensors", {{"x.other.weight", at::zeros({4, 4})}});
}

Arguments files(const char* base, const char* tuned) {
  return {"extract", "--base", base, "--tuned", tuned, "--out", "@/out.safetensors"};
}

const std::vector<WrongInput> kWrong = {
    {"NoTuned", {"extract", "--base", "@/model", "--out", "@/out"}, 2, {"--tuned is required"}},
    {"Method", extraction({"--method", "lorra"}), 2, {"lorra", "did you mean \"lora\""}},
    {"Budget", extraction({"--budget", "much"}), 2, {"--budget", "much"}},
    {"Out", extraction({"--out", "@/out"}), 2, {"--out", "not a .safetensors file"}},
    {"OutFolder",
     extraction({"--out", "@/nowhere/a.safetensors"}),
     3,
     {"nowhere", "the folder does not exist"}},
    {"Steps", extraction({"--steps", "0"}), 2, {"--steps", "at least 1"}},
    {"MaxError", extraction({"--max-error", "2"}), 2, {"--max-error", "between 0 and 1"}},
    {"MaxErrorAndBudget",
     extraction({"--max-error", "0.1", "--budget", "1k"}),
     2,
     {"--max-error", "--budget"}},
    {"CompareWithoutBudgets",
     extraction({"--compare", "lora", "--out", "@/out"}),
     2,
     {"--budgets", "0.1M,0.2M"}},
    {"CompareAndMethod",
     extraction({"--compare", "lora", "--budgets", "1k", "--method", "tr"}),
     2,
     {"--compare", "replaces --method"}},
    {"CompareWithAnEmptyEntry",
     extraction({"--compare", "lora,,tr", "--budgets", "1k"}),
     2,
     {"--compare", "empty entry"}},
    {"CompareUnknown",
     extraction({"--compare", "lora,tri(rank=2,x=1)", "--budgets", "1k"}),
     2,
     {"no method \"tri\""}},
    {"BudgetsAlone", extraction({"--budgets", "1k"}), 2, {"--budgets", "--compare"}},
    {"TheSameModelTwice",
     extraction({}),
     2,
     {"/tuned", "the same weights as", "fine-tuning"},
     same_model},
    {"NoSelectedLayerDiffers",
     extraction({}),
     2,
     {"none of the selected layers", "unet.conv_in.weight", "--targets"},
     changed_model},
    {"TargetUnknown", extraction({"--include", "*nope*"}), 2, {"nope", "no layer"}, changed_model},
    {"BudgetTooSmall",
     extraction({"--budget", "3", "--targets", "all"}),
     2,
     {"--budget", "parameters", "raise the budget"},
     changed_model},
    {"NoMethodFits",
     extraction({"--compare", "lora", "--budgets", "3", "--targets", "all", "--out", "@/out"}),
     2,
     {"--budgets", "no method fits"},
     changed_model},
    {"MaxErrorOfATransform",
     extraction({"--method", "oft", "--max-error", "0.1", "--targets", "all"}),
     2,
     {"--max-error", "lora only"},
     changed_model},
    {"AnotherKindOfModel",
     extraction({}),
     6,
     {"/tuned", "\"unet.conv_in.", "in the base"},
     [](const fs::path& folder) { golden::write_folder(folder / "tuned", "sdxl"); }},
    {"AnotherShape",
     files("@/a.safetensors", "@/b.safetensors"),
     6,
     {"b.safetensors", "model.x.fc.weight", "[4, 5]", "[4, 4]"},
     change_shape},
    {"AnotherName",
     files("@/a.safetensors", "@/c.safetensors"),
     6,
     {"c.safetensors", "model.x.fc.weight"},
     change_shape},
    {"AModelAndAFile",
     files("@/model", "@/a.safetensors"),
     6,
     {"a.safetensors", "is not a model"},
     change_shape},
    {"NotFinite",
     files("@/a.safetensors", "@/b.safetensors"),
     10,
     {"x.fc", "NaN"},
     [](const fs::path& folder) {
       io::save_tensors(folder / "a.safetensors", {{"x.fc.weight", at::zeros({4, 4})}});
       io::save_tensors(folder / "b.safetensors", {{"x.fc.weight", at::full({4, 4}, NAN)}});
     }},
};

class WrongExtract : public WrongInputTest {};

TEST_P(WrongExtract, IsExplained) { expect_explained(); }

INSTANTIATE_TEST_SUITE_P(All, WrongExtract, testing::ValuesIn(kWrong), name_of);

}  // namespace
}  // namespace ringlet::e2e
