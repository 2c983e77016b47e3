// Adapter files of every dialect that are wrong in one way: an error that says which, before any
// weight changes.
#include <fstream>
#include <functional>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/formats/adapter_reader.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/weight_source.h"
#include "tests/temporary_folder.h"

namespace ringlet::formats {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

/// A file that is right until `change` has been at it.
struct File {
  Tensors tensors;
  io::Metadata metadata;
  Json config;  ///< PEFT's; null for none
  std::string config_text;
};

struct Wrong {
  std::string name;
  File (*good)();
  std::function<void(File&)> change;
  ErrorCode code;
  std::string words;
};

constexpr const char* kKohya = "lora_unet_linear.";
constexpr const char* kPeft = "base_model.model.linear.";

File kohya_lora() {
  return {{{"lora_unet_linear.lora_down.weight", at::randn({2, 12})},
           {"lora_unet_linear.lora_up.weight", at::randn({8, 2})},
           {"lora_unet_linear.alpha", at::tensor(1.0F)},
           {"lora_unet_conv.lora_down.weight", at::randn({2, 4, 3, 3})},
           {"lora_unet_conv.lora_up.weight", at::randn({6, 2, 1, 1})}},
          {},
          {},
          {}};
}
File kohya(const Tensors& parts) {
  File file;
  for (const auto& [name, tensor] : parts) file.tensors[kKohya + name] = tensor;
  return file;
}
File loha() {
  return kohya({{"hada_w1_a", at::randn({8, 2})},
                {"hada_w1_b", at::randn({2, 12})},
                {"hada_w2_a", at::randn({8, 2})},
                {"hada_w2_b", at::randn({2, 12})}});
}
File lokr() {
  return kohya({{"lokr_w1", at::randn({2, 3})},
                {"lokr_w2_a", at::randn({4, 1})},
                {"lokr_w2_b", at::randn({1, 4})},
                {"alpha", at::tensor(1.0F)}});
}
File diag_oft() {
  return kohya({{"oft_blocks", at::randn({2, 4, 4})}, {"alpha", at::tensor(0.0F)}});
}
File glora() {
  return kohya({{"a1.weight", at::randn({12, 2})},
                {"a2.weight", at::randn({2, 12})},
                {"b1.weight", at::randn({8, 2})},
                {"b2.weight", at::randn({2, 12})}});
}
File ia3() { return kohya({{"weight", at::randn({8})}, {"on_input", at::tensor(0)}}); }
File diff() { return kohya({{"diff", at::randn({8, 12})}, {"diff_b", at::randn({8})}}); }

File peft(const std::string& type, const Tensors& parts, Json more = Json::object()) {
  File file;
  for (const auto& [name, tensor] : parts) file.tensors[kPeft + name] = tensor;
  file.config = {{"peft_type", type}, {"r", 2}};
  file.config.update(more);
  return file;
}
File peft_lora() {
  return peft("LORA", {{"lora_A.weight", at::randn({2, 12})}, {"lora_B.weight", at::randn({8, 2})}},
              {{"lora_alpha", 4}});
}
File peft_oft() {
  return peft("OFT", {{"oft_R.weight", at::randn({3, 6})}}, {{"oft_block_size", 4}});
}
File peft_boft() {
  return peft("BOFT", {{"boft_R", at::randn({1, 3, 4, 4})}, {"boft_s", at::ones({8, 1})}});
}
File peft_hra() { return peft("HRA", {{"hra_u", at::randn({12, 2})}}); }
File peft_fourier() {
  return peft("FOURIERFT", {{"fourierft_spectrum", at::randn({5})}}, {{"scaling", 3.0}});
}
File peft_vera() {
  return peft("VERA", {{"vera_lambda_b", at::randn({8})}, {"vera_lambda_d", at::randn({2})}},
              {{"projection_prng_key", 3}});
}
File diffusers() {
  return {{{"unet.linear.lora_A.weight", at::randn({2, 12})},
           {"unet.linear.lora_B.weight", at::randn({8, 2})}},
          {},
          {},
          {}};
}
File own() {
  return {{{"unet.linear.residual.down", at::randn({2, 12})},
           {"unet.linear.residual.up", at::randn({8, 2})}},
          {{"ringlet.format", "1"},
           {"ringlet.method", "lora(rank=2)"},
           {"ringlet.modes", "3"},
           {"ringlet.factors", "{}"},
           {"ringlet.base_hash", ""},
           {"ringlet.base_shapes", R"({"unet.linear":[8,12]})"},
           {"ringlet.training", ""}},
          {},
          {}};
}

auto set(const std::string& name, const at::Tensor& tensor) {
  return [name, tensor](File& file) { file.tensors[name] = tensor; };
}
auto drop(const std::string& name) {
  return [name](File& file) { file.tensors.erase(name); };
}
auto field(const char* name, const Json& value) {
  return [name, value](File& file) { file.config[name] = value; };
}
auto metadata(const char* name, const std::string& value) {
  return [name, value](File& file) { file.metadata[name] = value; };
}

std::vector<Wrong> cases() {
  using enum ErrorCode;
  const std::string down = "lora_unet_linear.lora_down.weight",
                    up = "lora_unet_linear.lora_up.weight", alpha = "lora_unet_linear.alpha",
                    p = kPeft;
  const at::Tensor nan = at::full({2, 12}, NAN), infinite = at::full({8, 2}, INFINITY);
  return {
      {"NaN", kohya_lora, set(down, nan), non_finite, "holds a NaN"},
      {"Infinity", kohya_lora, set(up, infinite), non_finite, "holds a NaN or an infinity"},
      {"RankZero", kohya_lora, set(down, at::zeros({0, 12})), mismatch, "is empty"},
      {"RanksDiffer", kohya_lora, set(up, at::randn({8, 3})), mismatch, "has 3 ranks"},
      {"Swapped", kohya_lora, [=](File& f) { std::swap(f.tensors[up], f.tensors[down]); }, mismatch,
       "ranks"},
      {"OtherWidth", kohya_lora, set(down, at::randn({2, 13})), mismatch,
       "the model's layer needs"},
      {"OtherHeight", kohya_lora, set(up, at::randn({9, 2})), mismatch, "the model's layer needs"},
      {"OneAxis", kohya_lora, set(up, at::randn({16})), mismatch, "too few axes"},
      {"NoAxis", kohya_lora, set(down, at::tensor(1.0F)), mismatch, "ranks"},
      {"Integers", kohya_lora, set(down, at::ones({2, 12}, at::kInt)), mismatch, "numbers of type"},
      {"Booleans", kohya_lora, set(up, at::ones({8, 2}, at::kBool)), mismatch, "numbers of type"},
      {"UpMissing", kohya_lora, drop(up), bad_format, "is missing"},
      {"DownMissing", kohya_lora, drop(down), bad_format, "is missing"},
      {"AlphaOfTwo", kohya_lora, set(alpha, at::ones({2})), mismatch, "is not one number"},
      {"AlphaNaN", kohya_lora, set(alpha, at::tensor(NAN)), non_finite, "holds a NaN"},
      {"AlphaNegative", kohya_lora, set(alpha, at::tensor(-1.0F)), mismatch, "below zero"},
      {"StrangeTensor", kohya_lora,
       set(std::string(kKohya) + "lora_mid.weight", at::randn({2, 2, 3, 3})), mismatch, ""},
      {"UnknownEnding", kohya_lora, set(std::string(kKohya) + "mystery", at::randn({2})), mismatch,
       "tensor \"lora_unet_linear.mystery\" is not understood"},
      {"UnknownLayer", kohya_lora, set("lora_unet_other.lora_down.weight", at::randn({2, 12})),
       mismatch, "not in the model: \"lora_unet_other.lora_down.weight\""},
      {"Dots", kohya_lora, set("lora_unet_../../etc.lora_down.weight", at::randn({2, 12})),
       mismatch, "not in the model"},
      {"EmptyPrefix", kohya_lora, set("lora_unet_.lora_down.weight", at::randn({2, 12})), mismatch,
       "not in the model"},
      {"TwoDialects", kohya_lora, set("unet.linear.lora_A.weight", at::randn({2, 12})), bad_format,
       "has the same layer twice"},
      {"NothingFits", kohya_lora,
       [](File& f) {
         f.tensors = {{"lora_unet_other.lora_down.weight", at::randn({2, 12})}};
       },
       mismatch, "made for another kind of model"},
      {"ForFlux", kohya_lora, set("lora_unet_double_blocks_0_img_mod_lin.alpha", at::tensor(1.0F)),
       mismatch, "is an adapter of FLUX"},
      {"ForFluxOfPeft", kohya_lora,
       set("base_model.model.single_transformer_blocks.0.attn.to_q.lora_A.weight",
           at::randn({2, 12})),
       mismatch, "is an adapter of FLUX"},
      {"ForStableDiffusion3", kohya_lora,
       set("diffusion_model.joint_blocks.0.x_block.attn.qkv.lora_up.weight", at::randn({2, 12})),
       mismatch, "is an adapter of Stable Diffusion 3"},
      {"ForTheXl", kohya_lora,
       set("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", at::randn({2, 12})),
       mismatch, "names of Stable Diffusion XL"},
      {"UnknownBesideAlpha", kohya_lora,
       [](File& f) {
         f.tensors = {{"lora_unet_linear.alpha", at::tensor(1.0F)},
                      {"lora_unet_linear.rescale", at::ones({8})}};
       },
       unsupported, "lora_unet_linear.rescale: is a tensor of an unsupported method"},
      {"OftRShape", diag_oft,
       [](File& f) {
         f.tensors = {{"lora_unet_linear.oft_R.weight", at::randn({2, 6})}};
       },
       mismatch, "is not the blocks"},
      {"OftDiagShape", diag_oft,
       [](File& f) {
         f.tensors = {{"lora_unet_linear.oft_diag", at::randn({3, 4, 4})}};
       },
       mismatch, "are not square blocks"},
      {"KohyaOftAlphaZero", diag_oft,
       [](File& f) {
         f.tensors = {{"oft_unet_linear.oft_blocks", at::randn({2, 4, 4})},
                      {"oft_unet_linear.alpha", at::tensor(0.0F)}};
       },
       unsupported, "limits the rotation to zero"},
      {"SetWeightSize", diff,
       [](File& f) {
         f.tensors = {{"lora_unet_linear.set_weight", at::randn({8, 13})}};
       },
       mismatch, "another size"},
      {"EmbeddingAlone", kohya_lora,
       [](File& f) {
         f.tensors = {{"emb_params", at::randn({2, 12})}};
       },
       bad_format, "`embedding` reads"},
      {"KernelOfOtherSize", kohya_lora,
       set("lora_unet_conv.lora_down.weight", at::randn({2, 4, 5, 5})), mismatch,
       "the model's layer needs"},
      {"MagnitudeOfOtherLength", kohya_lora,
       set(std::string(kKohya) + "dora_scale", at::ones({7, 1})), mismatch, "has 7 numbers"},
      {"LohaHalf", loha, drop(std::string(kKohya) + "hada_w2_a"), bad_format, "is missing"},
      {"LohaRanksDiffer", loha, set(std::string(kKohya) + "hada_w1_a", at::randn({8, 3})), mismatch,
       "the model's layer needs"},
      {"LokrProduct", lokr, set(std::string(kKohya) + "lokr_w1", at::randn({2, 4})), mismatch,
       "and its partner make"},
      {"LokrRanks", lokr, set(std::string(kKohya) + "lokr_w2_a", at::randn({4, 2})), mismatch,
       "the model's layer needs"},
      {"LokrHalf", lokr, drop(std::string(kKohya) + "lokr_w2_b"), bad_format, "is missing"},
      {"OftNotSquare", diag_oft, set(std::string(kKohya) + "oft_blocks", at::randn({2, 4, 3})),
       mismatch, "are not square blocks"},
      {"OftTooMany", diag_oft, set(std::string(kKohya) + "oft_blocks", at::randn({3, 4, 4})),
       mismatch, "are not square blocks"},
      {"OftFlat", diag_oft, set(std::string(kKohya) + "oft_blocks", at::randn({4, 4})), mismatch,
       "are not square blocks"},
      {"OftConstraint", diag_oft, set(std::string(kKohya) + "alpha", at::tensor(-0.5F)), mismatch,
       "below zero"},
      {"KohyaOft", diag_oft, metadata("ss_network_module", "networks.oft"), unsupported,
       "limits the rotation to zero"},
      {"BoftOdd", diag_oft, set(std::string(kKohya) + "oft_blocks", at::randn({2, 8, 1, 1})),
       unsupported, "do not exist"},
      {"GloraRanks", glora, set(std::string(kKohya) + "b1.weight", at::randn({8, 3})), mismatch,
       "another rank"},
      {"Ia3Length", ia3, set(std::string(kKohya) + "weight", at::randn({9})), mismatch,
       "one number per channel"},
      {"DiffSize", diff, set(std::string(kKohya) + "diff", at::randn({8, 11})), mismatch,
       "another size"},
      {"DiffTransposed", diff, set(std::string(kKohya) + "diff", at::randn({12, 8})), mismatch,
       "the model's layer needs"},
      {"NoConfiguration", peft_lora, [](File& f) { f.config = nullptr; }, not_found,
       "adapter_config.json"},
      {"ConfigurationNoJson", peft_lora, [](File& f) { f.config_text = "{\"r\": "; }, bad_format,
       "adapter_config.json"},
      {"ConfigurationList", peft_lora, [](File& f) { f.config = Json::array({1}); }, bad_format,
       "not a JSON object"},
      {"UnknownField", peft_lora, field("use_magic", true), unsupported, "use_magic"},
      {"Replication", peft_lora, field("layer_replication", Json::array({1})), unsupported,
       "layer_replication"},
      {"UnknownType", peft_lora, field("peft_type", "MISS"), unsupported, "MISS"},
      {"AlphaIsText", peft_lora, field("lora_alpha", "four"), bad_format, "wrong type"},
      {"FlagIsText", peft_lora, field("use_rslora", "yes"), bad_format, "wrong type"},
      {"BadPattern", peft_lora, field("alpha_pattern", {{"(", 3}}), bad_format,
       "regular expression"},
      {"AlphaPatternText", peft_lora, field("alpha_pattern", {{"linear", "x"}}), bad_format,
       "is not a number"},
      {"AlphaZeroInConfiguration", peft_lora, field("lora_alpha", 0), unsupported, ""},
      {"OftNumbers", peft_oft, set(p + "oft_R.weight", at::randn({3, 5})), mismatch,
       "is not the blocks"},
      {"OftCount", peft_oft, set(p + "oft_R.weight", at::randn({2, 6})), mismatch,
       "is not the blocks"},
      {"OftShared", peft_oft, field("block_share", true), mismatch, "is not one block"},
      {"OftTerms", peft_oft, field("num_cayley_neumann_terms", 1000000000), unsupported,
       "cannot be"},
      {"OftManyTerms", peft_oft, field("num_cayley_neumann_terms", 65), unsupported,
       "at most 64 terms"},
      {"OftNoTerms", peft_oft, field("num_cayley_neumann_terms", 0), unsupported, ""},
      {"BoftWidth", peft_boft, set(p + "boft_R", at::randn({1, 4, 4, 4})), mismatch,
       "are not square blocks"},
      {"BoftFactors", peft_boft, set(p + "boft_R", at::randn({4, 3, 4, 4})), unsupported,
       "do not exist"},
      {"BoftScale", peft_boft, set(p + "boft_s", at::ones({7, 1})), mismatch,
       "one number per output"},
      {"HraRows", peft_hra, set(p + "hra_u", at::randn({11, 2})), mismatch, "one row per input"},
      {"HraZeroVector", peft_hra, set(p + "hra_u", at::zeros({12, 2})), mismatch, "length zero"},
      {"FourierTooMany", peft_fourier, set(p + "fourierft_spectrum", at::randn({97})), mismatch,
       ""},
      {"VeraRows", peft_vera, set(p + "vera_lambda_b", at::randn({7})), mismatch,
       "the model's layer needs"},
      {"VeraOtherMatrices", peft_vera,
       [](File& f) {
         f.tensors["base_model.vera_A"] = at::randn({2, 12});
         f.tensors["base_model.vera_B"] = at::randn({8, 2});
       },
       unsupported, "are not the matrices"},
      {"VeraHalfTheMatrices", peft_vera,
       [](File& f) {
         f.tensors["base_model.vera_A"] = at::randn({2, 12});
       },
       unsupported, "are not the matrices"},
      {"DiffusersTwice", diffusers, set("unet.linear.lora.down.weight", at::randn({2, 12})),
       bad_format, "has the same tensor twice"},
      {"DiffusersMetadata", diffusers, metadata("lora_adapter_metadata", "{"), bad_format,
       "lora_adapter_metadata"},
      {"DiffusersMetadataList", diffusers, metadata("lora_adapter_metadata", "[]"), bad_format,
       "not a JSON object"},
      {"OwnHugeRank", own, metadata("ringlet.method", "lora(rank=2147483648)"), unsupported,
       "rank"},
      {"OwnBigRank", own, metadata("ringlet.method", "lora(rank=1000000)"), bad_format,
       "fewer than"},
      {"OwnRankZero", own, metadata("ringlet.method", "lora(rank=0)"), unsupported, "above 0"},
      {"OwnOtherRank", own, metadata("ringlet.method", "lora(rank=1)"), bad_format, "shape"},
      {"OwnCoreMissing", own, drop("unet.linear.residual.up"), bad_format, "fewer than"},
      {"OwnCoreTooMuch", own, set("unet.linear.residual.mid", at::randn({2})), bad_format,
       "belongs to none"},
      {"OwnLayerMethods", own, metadata("ringlet.layer_methods", R"({"unet.other":"lora"})"),
       bad_format, "that it does not change"},
      {"OwnLayerMethodsNoJson", own, metadata("ringlet.layer_methods", "x"), bad_format,
       "layer_methods"},
      {"OwnUnknownLayer", own, metadata("ringlet.base_shapes", R"({"unet.lin":[8,12]})"), mismatch,
       "does not have"},
      {"OwnOtherShape", own, metadata("ringlet.base_shapes", R"({"unet.linear":[8,13]})"), mismatch,
       "has shape"},
      {"OwnFactors", own,
       [](File& f) {
         f.metadata["ringlet.method"] = "tr(rank=1)";
         f.metadata["ringlet.factors"] = R"({"12":"1x1x1"})";
       },
       bad_format, "factors"},
      {"OwnManyParts", own,
       [](File& f) {
         std::string text = "oft(block=1)";
         for (int i = 0; i < 1000; ++i) text += "+oft(block=1)";
         f.metadata["ringlet.method"] = text;
       },
       unsupported, "parts"},
      {"OwnManyFactors", own, metadata("ringlet.method", "boft(block=2,factors=1000000)"),
       bad_format, "fewer than"},
      {"Empty", kohya_lora, [](File& f) { f.tensors.clear(); }, bad_format, "holds no tensor"},
  };
}

class WrongAdapters : public testing::TestWithParam<Wrong> {};

TEST_P(WrongAdapters, AreRefusedBeforeAnythingChanges) {
  const Wrong& wrong = GetParam();
  at::manual_seed(1);
  File file = wrong.good();
  const TemporaryFolder folder;
  nn::ModuleIndex unet;
  unet.layers["linear"] = std::make_shared<nn::LinearLayer>(at::randn({8, 12}), at::randn({8}));
  unet.layers["conv"] = std::make_shared<nn::Conv2dLayer>(at::randn({6, 4, 3, 3}), at::randn({6}),
                                                          nn::Conv2dOptions{.padding = 1});
  const at::Tensor before = unet.layers["linear"]->weight().clone();
  const adapt::Components components = {{"unet", &unet}};
  const auto write = [&](const File& content) {
    io::save_tensors(folder / "adapter_model.safetensors", content.tensors, content.metadata);
    if (content.config.is_null() && content.config_text.empty())
      return folder / "adapter_model.safetensors";
    std::ofstream(folder / "adapter_config.json")
        << (content.config_text.empty() ? content.config.dump() : content.config_text);
    return std::filesystem::path(folder / "");
  };
  EXPECT_NO_THROW(read_adapter(write(file), components));  // it is right before
  std::filesystem::remove(folder / "adapter_config.json");
  wrong.change(file);
  const auto path = write(file);
  try {
    read_adapter(path, components);
    FAIL() << "was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), wrong.code) << error.what();
    EXPECT_NE(std::string(error.what()).find(wrong.words), std::string::npos) << error.what();
    EXPECT_FALSE(error.message().empty());
    EXPECT_EQ(std::string(error.what()).find("c10"), std::string::npos) << error.what();
  }
  EXPECT_EQ(unet.layers["linear"]->adapter, nullptr);
  EXPECT_EQ(unet.layers["conv"]->adapter, nullptr);
  EXPECT_TRUE(at::equal(unet.layers["linear"]->weight(), before));
}

INSTANTIATE_TEST_SUITE_P(All, WrongAdapters, testing::ValuesIn(cases()),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace ringlet::formats
