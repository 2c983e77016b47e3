// Adapters as other programs wrote them (tests/golden/data/adapters), and ringlet's own, each
// damaged in one way: an error that says which, before any weight changes. What wrong numbers would
// cost is tested here, too: nothing is built that the file does not bring along.
#include <fstream>
#include <functional>
#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "ringlet/core/random.h"
#include "ringlet/formats/adapter_reader.h"
#include "ringlet/io/tensor_file.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/temporary_folder.h"

namespace ringlet::formats {
namespace {

namespace fs = std::filesystem;

const fs::path& golden_folder() {
  static const fs::path path = fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data/adapters";
  return path;
}

constexpr const char* kToQ = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q";

/// The network that the golden files were made on, and a layer without a bias.
class Network {
 public:
  Network() {
    for (const char* name : {"linear", "wide", "conv", kToQ,
                             "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"})
      add(unet_, name);
    add(text_encoder_, "text_model.encoder.layers.0.self_attn.q_proj");
    unet_.layers["bare"] =
        std::make_shared<nn::LinearLayer>(base_.at("linear.weight"), at::Tensor());
    for (const char* norm : {"group_norm", "layer_norm"})
      for (const char* part : {".weight", ".bias"})
        unet_.tensors[std::string(norm) + part] = base_.at(std::string(norm) + part).clone();
    unet_.tensors["linear.weight"] = unet_.layers.at("linear")->weight();
  }

  adapt::Components components() const {
    return {{"unet", &unet_}, {"text_encoder", &text_encoder_}};
  }

  void expect_untouched() const {
    for (const auto& [component, index] : components()) {
      for (const auto& [name, layer] : index->layers) {
        EXPECT_EQ(layer->adapter, nullptr) << name;
        const auto before = base_.find(name + ".weight");
        if (before != base_.end()) {
          EXPECT_TRUE(at::equal(layer->weight(), before->second)) << name;
        }
      }
      for (const auto& [name, tensor] : index->tensors)
        EXPECT_TRUE(at::equal(tensor, base_.at(name))) << name;
    }
  }

 private:
  void add(nn::ModuleIndex& index, const std::string& name) const {
    const at::Tensor weight = base_.at(name + ".weight").clone(), bias = base_.at(name + ".bias");
    if (weight.dim() == 4)
      index.layers[name] =
          std::make_shared<nn::Conv2dLayer>(weight, bias, nn::Conv2dOptions{.padding = 1});
    else
      index.layers[name] = std::make_shared<nn::LinearLayer>(weight, bias);
  }

  std::map<std::string, at::Tensor> base_ = io::load_tensors(golden_folder() / "base.safetensors");
  nn::ModuleIndex unet_, text_encoder_;
};

/// An adapter until something has been done to it.
struct Content {
  std::map<std::string, at::Tensor> tensors;
  io::Metadata metadata;
  Json config;              ///< PEFT's; null for none
  std::string config_text;  ///< in place of `config`

  fs::path write(const TemporaryFolder& folder) const {
    const fs::path weights = folder / "adapter_model.safetensors",
                   settings = folder / "adapter_config.json";
    fs::remove(settings);
    io::save_tensors(weights, tensors, metadata);
    if (config.is_null() && config_text.empty()) return weights;
    std::ofstream(settings) << (config_text.empty() ? config.dump() : config_text);
    return folder.path();
  }
};

/// A golden file; "own METHOD" is an adapter of ringlet's own for two layers, "cloneofsimo" one
/// with its numbered names.
Content good(const std::string& what) {
  Content content;
  if (what == "cloneofsimo") {
    content.tensors = {{"unet:0:down", at::ones({4, 48})},
                       {"unet:0:up", at::ones({40, 4})},
                       {"<word>", at::ones({8})}};
    content.metadata["unet"] = R"(["CrossAttention","Attention","GEGLU"])";
    return content;
  }
  if (what.starts_with("own ")) {
    const TemporaryFolder folder;
    const Network network;
    const adapt::AdapterSet set = adapt::AdapterSet::create(
        adapt::parse_method(what.substr(4)),
        adapt::select_targets(network.components(), {.include = {"unet.linear", "unet.conv"}}),
        adapt::FactorTable(), Random(4));
    adapt::save_adapter(folder / "own", set);
    for (const auto& [name, tensor] : io::load_tensors(folder / "own"))
      content.tensors[name] = tensor.clone();
    content.metadata = io::SafetensorsFile::open(folder / "own")->metadata();
    return content;
  }
  const fs::path path = golden_folder() / what;
  const bool folder = fs::is_directory(path);
  const fs::path file =
      folder ? path / "adapter_model.safetensors" : golden_folder() / (what + ".safetensors");
  content.tensors = io::load_tensors(file);
  content.metadata = io::SafetensorsFile::open(file)->metadata();
  if (folder) content.config = read_json_file(path / "adapter_config.json");
  return content;
}

struct Case {
  std::string name, what;
  std::function<void(Content&)> damage;
  ErrorCode code;
  std::string words;

  friend void PrintTo(const Case& one, std::ostream* stream) { *stream << one.what; }
};

auto set(const std::string& name, const at::Tensor& tensor) {
  return [=](Content& content) { content.tensors[name] = tensor; };
}
auto drop(const std::string& name) {
  return [=](Content& content) { EXPECT_EQ(content.tensors.erase(name), 1U); };
}
/// Another tensor type, or other numbers of the same.
auto to(const std::string& name, at::ScalarType type) {
  return [=](Content& content) { content.tensors.at(name) = content.tensors.at(name).to(type); };
}
auto fill(const std::string& name, double value) {
  return [=](Content& content) {
    content.tensors.at(name) = at::full_like(content.tensors.at(name), value);
  };
}
auto field(const std::string& name, const Json& value) {
  return [=](Content& content) { content.config[name] = value; };
}
auto metadata(const std::string& name, const std::string& value) {
  return [=](Content& content) { content.metadata[name] = value; };
}
auto text(const std::string& config) {
  return [=](Content& content) { content.config_text = config; };
}
/// diffusers' metadata with one field more.
auto saved(const std::string& name, const Json& value) {
  return [=](Content& content) {
    Json all = parse_json(content.metadata.at("lora_adapter_metadata"), "metadata");
    all[name] = value;
    content.metadata["lora_adapter_metadata"] = all.dump();
  };
}
auto both(const std::function<void(Content&)>& one, const std::function<void(Content&)>& two) {
  return [=](Content& content) {
    one(content);
    two(content);
  };
}

/// Low rank: what all dialects have in common.
std::vector<Case> low_rank_cases() {
  using enum ErrorCode;
  const std::string down = "lora_unet_linear.lora_down.weight",
                    up = "lora_unet_linear.lora_up.weight", alpha = "lora_unet_linear.alpha",
                    file = "lycoris_kohya_locon";
  const at::Tensor two = at::ones({2});
  return {
      {"Float8", file, to(down, at::kFloat8_e4m3fn), mismatch, "numbers of type Float8_e4m3fn"},
      {"Float8Alpha", file, to(alpha, at::kFloat8_e5m2), mismatch, "numbers of type"},
      {"BooleanAlpha", file, to(alpha, at::kBool), mismatch, "numbers of type Bool"},
      {"UnsignedFactor", file, to(up, at::kUInt16), mismatch, "numbers of type UInt16"},
      {"DoublesTooLarge", file, both(to(down, at::kDouble), fill(down, 1e300)), non_finite,
       "too large for fp32"},
      {"AlphaTooLarge", file, set(alpha, at::tensor(1e30F)), unsupported, "cannot be"},
      {"AlphaOfNoNumber", file, set(alpha, at::zeros({0})), mismatch, "is empty"},
      // 352 MB, were they built
      {"HugeRank", file,
       both(set(down, at::zeros({1000000, 1}, at::kHalf)),
            set(up, at::zeros({1, 1000000}, at::kHalf))),
       mismatch, "fewer than"},
      {"RankOverTheLimit", file,
       both(set(down, at::zeros({1 << 21, 1}, at::kHalf)),
            set(up, at::zeros({1, 1 << 21}, at::kHalf))),
       unsupported, "cannot be"},
      {"Transposed", file, set(down, at::ones({48, 4})), mismatch, "ranks"},
      {"ShapeOfAnotherLayer", file, set(down, at::ones({4, 8, 3, 3})), mismatch,
       "has shape [4, 8, 3, 3], the model's layer needs [4, 48]"},
      {"KernelFlatTheOtherWay", file,
       set("lora_unet_conv.lora_down.weight", at::ones({4, 9, 8, 1})), mismatch,
       "the model's layer needs [4, 8, 3, 3]"},
      {"Ia3BesideIt", file, set("lora_unet_linear.weight", at::ones({40})), bad_format,
       "on_input: is missing"},
      {"DifferenceBesideIt", file, set("lora_unet_linear.diff", at::ones({40, 48})), bad_format,
       "does not belong to the rest"},
      {"NormBesideIt", file, set("lora_unet_linear.w_norm", at::ones({40})), bad_format,
       "does not belong to a norm"},
      {"OnlyAlpha", file, both(drop(down), drop(up)), unsupported, "of no known method"},
      {"CoreOfOtherSize", "lycoris_locon_tucker",
       set("lycoris_conv.lora_mid.weight", at::ones({4, 4, 5, 5})), mismatch,
       "the model's layer needs [4, 4, 3, 3]"},
      {"CoreMissing", "lycoris_locon_tucker", drop("lycoris_conv.lora_mid.weight"), mismatch,
       "the model's layer needs [4, 8, 3, 3]"},
      {"CoreOnALinearLayer", "lycoris_locon_tucker",
       set("lycoris_linear.lora_mid.weight", at::ones({4, 4, 1, 1})), mismatch, "is a core"},
      {"MagnitudeInfinite", "lycoris_locon_dora_out",
       fill("lycoris_linear.dora_scale", std::numeric_limits<double>::infinity()), non_finite,
       "dora_scale: holds a NaN or an infinity"},
      {"MagnitudeOfNeitherAxis", "lycoris_locon_dora_in",
       set("lycoris_linear.dora_scale", at::ones({2, 24})), mismatch, "has 48 numbers"},
      {"MagnitudeEmpty", "lycoris_locon_dora_in",
       set("lycoris_linear.dora_scale", at::ones({1, 0})), mismatch, "is empty"},
      {"BiasWithoutABias", "lycoris_full", set("lycoris_bare.diff_b", at::ones({40})), unsupported,
       "needs a layer that has one"},
      {"BiasOfOtherLength", "lycoris_full", set("lycoris_linear.diff_b", at::ones({41})), mismatch,
       "the model's layer needs [40]"},
      {"NormOfOtherLength", "lycoris_norm", set("lycoris_group_norm.w_norm", at::ones({9})),
       mismatch, "does not fit the model's norm"},
      {"NormNaN", "lycoris_norm", fill("lycoris_layer_norm.b_norm", NAN), non_finite,
       "something else than finite numbers"},
      {"NormOfIntegers", "lycoris_norm", to("lycoris_layer_norm.b_norm", at::kLong), non_finite,
       "something else than finite numbers"},
      {"NormFloat8", "lycoris_norm", to("lycoris_layer_norm.b_norm", at::kFloat8_e5m2), non_finite,
       "something else than finite numbers"},
      {"NormDoublesTooLarge", "lycoris_norm",
       both(to("lycoris_layer_norm.b_norm", at::kDouble), fill("lycoris_layer_norm.b_norm", 1e300)),
       non_finite, "too large for fp32"},
      {"NormThatIsALayer", "lycoris_norm", set("lycoris_linear.w_norm", at::ones({40, 48})),
       mismatch, "does not fit the model's norm"},
  };
}

/// Names.
std::vector<Case> name_cases() {
  using enum ErrorCode;
  const at::Tensor down = at::ones({4, 48}), up = at::ones({40, 4});
  const std::string to_q = kToQ;
  const auto layer = [&](const std::string& prefix) {
    return both(set(prefix + ".lora_A.weight", down), set(prefix + ".lora_B.weight", up));
  };
  return {
      {"NameClimbs", "diffusers_current_bare", layer("../../etc/passwd"), mismatch,
       "belong to nothing"},
      {"NameIsAPath", "diffusers_current_bare", layer("/etc/passwd"), mismatch,
       "belong to nothing"},
      {"NameIsTheComponent", "diffusers_current_bare", layer("unet."), mismatch,
       "belong to nothing"},
      {"NameEmpty", "diffusers_current_bare", set("", down), mismatch, "belong to nothing"},
      {"NameOfAnEndingOnly", "diffusers_current_bare", layer(""), mismatch, "belong to nothing"},
      {"NameWithControls", "diffusers_current_bare", layer("unet.\x1b[31m\n\r"), mismatch,
       "unet.\\x1b[31m\\x0a"},
      {"NameVeryLong", "diffusers_current_bare", layer(std::string(100000, 'x')), mismatch,
       "belong to nothing"},
      {"NamesVeryLong", "diffusers_current_bare",
       [&](Content& c) {
         for (char letter = 'a'; letter < 'z'; ++letter)
           c.tensors[std::string(5000, letter)] = at::ones({1});
       },
       mismatch, "25 of its tensors"},
      {"LayerInTwoSpellings", "diffusers_current_bare", layer(to_q), bad_format,
       "twice: \"" + to_q + "\" and \"unet." + to_q + "\""},
      {"LayerOfAnAttentionProcessor", "diffusers_processor", layer("unet." + to_q), bad_format,
       "twice"},
      {"EndingInTwoSpellings", "peft_adalora",
       set("base_model.model.linear.lora_A.weight", at::ones({6, 48})), bad_format,
       "says the same twice"},
      {"NormInTwoSpellings", "lycoris_norm",
       both(set("lora_unet_layer_norm.w_norm", at::ones({48})),
            set("lora_unet_layer_norm.b_norm", at::ones({48}))),
       bad_format, "twice"},
      {"KohyaAndPeft", "peft_lora", set("lora_unet_linear.lora_down.weight", down), bad_format,
       "mixes the names of two programs"},
      {"KohyaAndCloneofsimo", "lycoris_kohya_locon", set("unet:0:down", down), bad_format,
       "mixes the names of two programs"},
      {"PeftTensorOfNoLayer", "peft_lora", set("base_model.classifier.weight", down), mismatch,
       "belong to nothing"},
      {"PeftAdapterName", "peft_lora",
       set("base_model.model.linear.lora_A.default.weight", at::ones({4, 48})), mismatch,
       "belong to nothing"},
      {"OtherComponent", "diffusers_current_bare", layer("text_encoder_2." + to_q), mismatch,
       "belong to nothing"},
      {"NumberTooLarge", "cloneofsimo", both(set("unet:99:down", down), set("unet:99:up", up)),
       mismatch, "belong to nothing"},
      {"NumberOfNone", "cloneofsimo", both(set("unet:-1:down", down), set("unet:-1:up", up)),
       mismatch, "belong to nothing"},
      {"NumberOfHalfAPair", "cloneofsimo", drop("unet:0:up"), bad_format, "unet:0:up: is missing"},
      {"ClassesOfOthers", "cloneofsimo", metadata("unet", R"(["ResnetBlock2D"])"), unsupported,
       "of other classes"},
      {"ClassesNoJson", "cloneofsimo", metadata("unet", "CrossAttention"), bad_format,
       "is not valid JSON"},
      {"ClassesANumber", "cloneofsimo", metadata("unet", "7"), unsupported, "of other classes"},
  };
}

/// Products, rotations and scales of LyCORIS and kohya.
std::vector<Case> lycoris_cases() {
  using enum ErrorCode;
  const std::string l = "lycoris_linear.", c = "lycoris_conv.";
  const at::Tensor two = at::ones({2});
  return {
      {"LohaMissing", "lycoris_loha", drop(l + "hada_w2_b"), bad_format, "is missing"},
      {"LohaNoAxes", "lycoris_loha", set(l + "hada_w1_b", at::tensor(1.0F)), mismatch,
       "the model's layer needs"},
      {"LohaTransposed", "lycoris_loha", set(l + "hada_w1_b", at::ones({48, 4})), mismatch,
       "fewer than"},
      {"LohaHalfACore", "lycoris_loha_tucker", drop(c + "hada_t2"), bad_format, "is missing"},
      {"LohaCoresOnALinearLayer", "lycoris_loha",
       both(set(l + "hada_t1", at::ones({4, 4, 1, 1})), set(l + "hada_t2", at::ones({4, 4, 1, 1}))),
       bad_format, "hada_t1: is not used"},
      {"LokrBothForms", "lycoris_lokr_full", set(l + "lokr_w1_a", at::ones({5, 2})), bad_format,
       "does not belong to the rest"},
      {"LokrNoAxes", "lycoris_lokr", set(l + "lokr_w1", at::tensor(1.0F)), mismatch,
       "too few axes"},
      {"LokrOneAxis", "lycoris_lokr_full", set(l + "lokr_w2", at::ones({64})), mismatch,
       "too few axes"},
      {"LokrOtherRanks", "lycoris_lokr_both",
       both(set(l + "lokr_w1_a", at::ones({5, 3})), set(l + "lokr_w1_b", at::ones({3, 6}))),
       mismatch, "the model's layer needs"},
      {"LokrCoreOnALinearLayer", "lycoris_lokr_tucker", set(l + "lokr_t2", at::ones({2, 2, 1, 1})),
       mismatch, "make"},
      {"LokrCoreAndPositions", "lycoris_lokr_tucker", set(c + "lokr_w2_b", at::ones({2, 36})),
       mismatch, "make"},
      {"LokrWholeAndCore", "lycoris_lokr_full", set(c + "lokr_t2", at::ones({2, 2, 3, 3})),
       bad_format, "does not belong to the rest"},
      {"LokrProductOverflows", "lycoris_lokr",
       both(set(l + "lokr_w1", at::zeros({1 << 20, 1}, at::kHalf)),
            set(l + "lokr_w2_a", at::zeros({1 << 20, 2}, at::kHalf))),
       mismatch, "and its partner make"},
      {"LokrAlphaOfTwo", "lycoris_lokr_full", set(l + "alpha", two), mismatch, "is not one number"},
      {"GloraMissing", "lycoris_glora", drop(l + "a2.weight"), bad_format, "is missing"},
      {"GloraOneAxis", "lycoris_glora", set(l + "a1.weight", at::ones({192})), mismatch,
       "too few axes"},
      {"GloraOtherRank", "lycoris_glora", set(l + "b2.weight", at::ones({3, 48})), mismatch,
       "the model's layer needs [4, 48]"},
      {"GloraOtherWidth", "lycoris_glora", set(l + "a2.weight", at::ones({48, 4})), mismatch,
       "the model's layer needs"},
      {"OftNoAxes", "lycoris_diag_oft", set(l + "oft_blocks", at::tensor(1.0F)), mismatch,
       "are not square blocks"},
      {"OftOneAxis", "lycoris_diag_oft", set(l + "oft_blocks", at::ones({160})), mismatch,
       "are not square blocks"},
      {"OftFiveAxes", "lycoris_diag_oft", set(l + "oft_blocks", at::ones({1, 1, 10, 4, 4})),
       mismatch, "are not square blocks"},
      {"OftAlphaOfTwo", "lycoris_diag_oft_constraint", set(l + "alpha", two), mismatch,
       "is not one number"},
      {"OftAlphaNaN", "lycoris_diag_oft_constraint", fill(l + "alpha", NAN), non_finite,
       "alpha: holds a NaN"},
      {"OftAlphaTooLarge", "lycoris_diag_oft_constraint", set(l + "alpha", at::tensor(1e30F)),
       unsupported, "cannot be"},
      {"OftOfKohya", "lycoris_kohya_diag_oft",
       both(metadata("ss_network_module", "networks.oft_flux"),
            set("lora_unet_linear.alpha", at::tensor(0))),
       unsupported, "limits the rotation to nothing"},
      // Skew-symmetric matrices of odd size are singular: (I - Q)^-1 is lost to rounding.
      {"OftTooLarge", "lycoris_diag_oft",
       [=](Content& content) {
         content.tensors.at(c + "oft_blocks") = content.tensors.at(c + "oft_blocks") * 1e30F;
       },
       non_finite, "unet.conv"},
      {"OftRescaleLength", "lycoris_diag_oft_rescaled", set(l + "rescale", at::ones({41, 1})),
       mismatch, "one number per output"},
      {"OftRescaleAlone", "lycoris_diag_oft_rescaled", drop(l + "oft_blocks"), unsupported,
       "of no known method"},
      {"BoftOddBlock", "lycoris_boft", set(l + "oft_blocks", at::ones({1, 8, 5, 5})), unsupported,
       "be even"},
      {"BoftManyFactors", "lycoris_boft", set(l + "oft_blocks", at::ones({31, 10, 4, 4})),
       unsupported, "must divide the channels"},
      {"BoftNotSquare", "lycoris_boft", set(l + "oft_blocks", at::ones({2, 10, 4, 2})), mismatch,
       "are not square blocks"},
      {"Ia3NoSide", "lycoris_ia3_input", drop(l + "on_input"), bad_format, "is missing"},
      {"Ia3SideOfTwo", "lycoris_ia3_input", set(l + "on_input", two), mismatch,
       "is not one number"},
      {"Ia3OtherSide", "lycoris_ia3_input", set(l + "on_input", at::tensor(0)), mismatch,
       "one number per channel"},
      {"Ia3OnlyTheSide", "lycoris_ia3_input", drop(l + "weight"), unsupported,
       "of no known method"},
  };
}

/// PEFT: the configuration against the tensors.
std::vector<Case> peft_cases() {
  using enum ErrorCode;
  const std::string l = "base_model.model.linear.", c = "base_model.model.conv.";
  return {
      {"ConfigTypeOfAnother", "peft_lora", field("peft_type", "LOHA"), bad_format,
       "peft_type \"LOHA\""},
      {"ConfigTypeOfOft", "peft_oft_cayley", field("peft_type", "LORA"), bad_format,
       "peft_type \"LORA\""},
      {"ConfigTypeIsANumber", "peft_lora", field("peft_type", 7), bad_format, "wrong type"},
      {"ConfigRankOfOthers", "peft_lora", field("r", 8), mismatch, "rank 8"},
      {"ConfigRankHuge", "peft_lora", field("r", 2147483648), mismatch, "rank 2147483648"},
      {"ConfigRankIsText", "peft_lora", field("r", "4"), bad_format, "wrong type"},
      {"ConfigRankIsAFraction", "peft_lora", field("r", 4.5), bad_format, "wrong type"},
      {"ConfigRankPattern", "peft_lora", field("rank_pattern", {{"conv", 3}}), mismatch, "rank 3"},
      {"ConfigRankPatternHuge", "peft_lokr_full", field("rank_pattern", {{"conv", 1e300}}),
       bad_format, "whole number"},
      {"ConfigRankOfLokrZero", "peft_lokr_full", field("r", 0), unsupported, "cannot be"},
      {"ConfigRankPatternAList", "peft_lora", field("rank_pattern", {1, 2}), bad_format,
       "rank_pattern"},
      {"ConfigAlphaPatternText", "peft_lora", field("alpha_pattern", "linear"), bad_format,
       "alpha_pattern"},
      {"ConfigAlphaPatternZero", "peft_lora", field("alpha_pattern", {{"linear", 0}}), unsupported,
       "cannot be"},
      {"ConfigAlphaNegative", "peft_lora", field("lora_alpha", -2), unsupported, "cannot be"},
      {"ConfigAlphaHuge", "peft_lora", field("lora_alpha", 1e200), unsupported, "cannot be"},
      {"ConfigAlphaAList", "peft_lora", field("lora_alpha", {2}), bad_format, "wrong type"},
      {"ConfigDoraWithoutLengths", "peft_lora", field("use_dora", true), bad_format,
       "lora_magnitude_vector: is missing"},
      {"ConfigDoraIsText", "peft_lora_dora", field("use_dora", "yes"), bad_format, "wrong type"},
      {"ConfigBiasWithoutIt", "peft_lora", field("lora_bias", true), bad_format,
       "lora_B.bias: is missing"},
      {"ConfigLoftq", "peft_lora", field("init_lora_weights", "loftq"), unsupported, "\"loftq\""},
      {"ConfigCorda", "peft_lora", field("init_lora_weights", "corda"), unsupported, "\"corda\""},
      {"ConfigUnknownStart", "peft_lora", field("init_lora_weights", "../x"), unsupported,
       "\"../x\""},
      {"ConfigFieldIsHuge", "peft_lora", field("mystery", std::string(1 << 20, 'm')), unsupported,
       "mystery"},
      {"ConfigFieldNameIsHuge", "peft_lora", field(std::string(1 << 20, 'm'), 1), unsupported,
       "mmm"},
      {"ConfigTwice", "peft_lora", text(R"({"r":4,"r":4})"), bad_format, "appears twice"},
      {"ConfigDeep", "peft_lora", text("{\"r\":" + std::string(10000, '[')), bad_format, "deep"},
      {"ConfigEmpty", "peft_lora", text("\n"), bad_format, "is not valid JSON"},
      {"ConfigUtf16", "peft_lora", text("\xFF\xFE{}"), bad_format, "adapter_config.json"},
      {"ConfigOfAnotherProgram", "peft_lora", text(R"({"_class_name":"UNet2DConditionModel"})"),
       unsupported, "_class_name"},

      {"PatternBroken", "peft_lora", field("alpha_pattern", {{"[z-a]", 3}}), bad_format,
       "is no regular expression"},
      {"PatternVeryLong", "peft_lora",
       field("alpha_pattern", {{std::string(100000, '(') + std::string(100000, ')'), 3}}),
       unsupported, "longer than"},
      {"PatternCounts", "peft_lora", field("alpha_pattern", {{"((.{1,999}){1,999}){9}", 3}}),
       unsupported, "repeat counts"},
      {"PatternLooksAhead", "peft_lora", field("alpha_pattern", {{"(?=.*(?=.*x))", 3}}),
       unsupported, "looks ahead"},
      {"PatternRefersBack", "peft_lora", field("alpha_pattern", {{R"((a*)*\1b)", 3}}), bad_format,
       "is no regular expression"},
      {"PatternsTooMany", "peft_lora",
       [](Content& content) {
         for (int i = 0; i < 1000; ++i)
           content.config["alpha_pattern"]["(no)+" + std::to_string(i)] = 1;
       },
       unsupported, "regular expressions"},
      {"FeedforwardIsANumber", "peft_ia3_feedforward", field("feedforward_modules", 7), bad_format,
       "feedforward_modules"},
      {"FeedforwardHoldsNumbers", "peft_ia3_feedforward", field("feedforward_modules", {7}),
       bad_format, "feedforward_modules"},
      {"FeedforwardBroken", "peft_ia3_feedforward", field("feedforward_modules", "*"), bad_format,
       "is no regular expression"},
      {"FeedforwardForgotten", "peft_ia3_feedforward", field("feedforward_modules", nullptr),
       mismatch, "one number per channel"},

      {"PissaScale", "peft_lora_pissa", field("lora_alpha", 1e-300), non_finite, "pissa"},
      {"PissaRank", "peft_lora_pissa",
       [=](Content& content) {
         content.tensors.at(l + "lora_A.weight") = at::ones({41, 48});
         content.tensors.at(l + "lora_B.weight") = at::ones({40, 41});
         content.config["r"] = 41;
       },
       unsupported, "no more ranks than the weight"},
      {"AdaloraOneAxis", "peft_adalora", set(l + "lora_A", at::ones({6})), mismatch,
       "too few axes"},
      {"AdaloraScales", "peft_adalora", set(l + "lora_E", at::ones({5, 1})), mismatch,
       "one number per rank"},
      {"AdaloraFirstRank", "peft_adalora", field("init_r", 0), unsupported, "init_r"},
      {"AdaloraFirstRankText", "peft_adalora", field("init_r", "x"), bad_format, "wrong type"},
      {"AdaloraOverflow", "peft_adalora", both(fill(l + "lora_A", 1e30), fill(l + "lora_E", 1e30)),
       non_finite, "too large for fp32"},

      {"OftSeriesIsText", "peft_oft_neumann", field("use_cayley_neumann", "yes"), bad_format,
       "wrong type"},
      {"OftTermsNegative", "peft_oft_neumann", field("num_cayley_neumann_terms", -1), unsupported,
       "cannot be"},
      {"OftTermsFraction", "peft_oft_neumann", field("num_cayley_neumann_terms", 2.5), bad_format,
       "wrong type"},
      {"OftLimitZero", "peft_oft_coft", field("eps", 0.0), unsupported, "eps"},
      {"OftLimitNegative", "peft_oft_coft", field("eps", -1.0), unsupported, "eps"},
      {"OftLimitIsText", "peft_oft_coft", field("eps", "x"), bad_format, "wrong type"},
      {"OftOneAxisOfPeft", "peft_oft_neumann", set(l + "oft_R.weight", at::ones({168})), mismatch,
       "too few axes"},
      {"OftThreeAxes", "peft_oft_neumann", set(l + "oft_R.weight", at::ones({6, 28, 1})), mismatch,
       "is not the blocks"},
      {"OftSizeThatDividesNothing", "peft_oft_neumann", set(l + "oft_R.weight", at::ones({6, 21})),
       mismatch, "is not the blocks"},
      {"BoftThreeAxes", "peft_boft_m2", set(l + "boft_R", at::ones({12, 4, 4})), mismatch,
       "are not square blocks"},
      {"BoftScaleNaN", "peft_boft_m2", fill(l + "boft_s", NAN), non_finite, "boft_s"},
      {"HraOneZeroColumn", "peft_hra",
       [=](Content& content) {
         content.tensors.at(l + "hra_u") = content.tensors.at(l + "hra_u").clone();
         content.tensors.at(l + "hra_u").select(1, 2).zero_();
       },
       mismatch, "length zero"},
      {"HraTooLong", "peft_hra", fill(l + "hra_u", 1e30), non_finite, "unet.linear"},
      {"HraOneAxis", "peft_hra", set(l + "hra_u", at::ones({48})), mismatch, "one row per input"},
      {"HraRank", "peft_hra", field("r", 3), mismatch, "rank 3"},
      {"HraOrthogonalOfTooMany", "peft_hra_gs",
       [=](Content& content) {
         for (const std::string& name : {l, c})
           content.tensors.at(name + "hra_u") = at::randn({name == l ? 48 : 72, 100});
         content.config["r"] = 100;
       },
       mismatch, "more vectors than"},
      {"Ia3LengthOfPeft", "peft_ia3", set(l + "ia3_l", at::ones({39, 1})), mismatch,
       "one number per channel"},
      {"FourierScale", "peft_fourierft", field("scaling", 0.0), unsupported, "cannot be"},
      {"FourierScaleIsText", "peft_fourierft", field("scaling", "x"), bad_format, "wrong type"},
      {"FourierSeed", "peft_fourierft", field("random_loc_seed", -1), unsupported, "cannot be"},
      {"FourierSeedHuge", "peft_fourierft", field("random_loc_seed", 1e18), bad_format,
       "wrong type"},
      {"FourierMoreThanPlaces", "peft_fourierft",
       set(l + "fourierft_spectrum", at::ones({40 * 48 + 1})), mismatch, "the model's layer needs"},
      {"VeraRank", "peft_vera_no_projection", field("r", 9), mismatch, "rank 9"},
      // 352 MB, were they built
      {"VeraHugeRank", "peft_vera_no_projection",
       [=](Content& content) {
         for (const char* name : {"linear", "wide"})
           content.tensors.at("base_model.model." + std::string(name) + ".vera_lambda_d") =
               at::zeros({1000000}, at::kHalf);
         content.config["r"] = 1000000;
       },
       unsupported, "vera"},
      {"VeraSeed", "peft_vera_no_projection", field("projection_prng_key", -1), unsupported,
       "cannot be"},
      {"VeraSeedHuge", "peft_vera", field("projection_prng_key", 1LL << 40), unsupported,
       "cannot be"},
      {"VeraOtherSeed", "peft_vera", field("projection_prng_key", 12), unsupported,
       "are not the matrices"},
      {"VeraIntegers", "peft_vera", to("base_model.vera_A", at::kInt), unsupported,
       "are not the matrices"},
      {"VeraTransposed", "peft_vera", set("base_model.vera_A", at::ones({56, 8})), unsupported,
       "are not the matrices"},
      {"VeraHalfAPair", "peft_vera", drop(l + "vera_lambda_d"), bad_format, "is missing"},
      {"VeraMatricesOfNone", "peft_lora", set("base_model.vera_A", at::ones({8, 56})), bad_format,
       "vera_A"},

      {"SavedRank", "diffusers_current", saved("unet.r", 5), mismatch, "rank 5"},
      {"SavedAlphaIsText", "diffusers_current", saved("unet.lora_alpha", "x"), bad_format,
       "wrong type"},
      {"SavedUnknownField", "diffusers_current", saved("unet.mystery", 1), unsupported, "mystery"},
      {"SavedForNobody", "diffusers_current", saved("lora_alpha", 3), unsupported,
       "\"lora_alpha\""},
      {"SavedDora", "diffusers_current", saved("unet.use_dora", true), bad_format,
       "lora_magnitude_vector: is missing"},
      {"SavedIsText", "diffusers_current", metadata("lora_adapter_metadata", "\"unet.r\""),
       bad_format, "is no JSON object"},
  };
}

/// ringlet's own files.
std::vector<Case> own_cases() {
  using enum ErrorCode;
  const std::string method = "ringlet.method", layer_methods = "ringlet.layer_methods",
                    l = "unet.linear.", lora = "own lora(rank=2)";
  const std::string chain =
      "own oft(block=4)+hra(rank=2)+diagonal(side=output)+lowrank(rank=1)+lora(rank=1)+magnitude";
  const auto other = [=](const std::string& text) { return metadata(method, text); };
  const auto linear_is = [=](const std::string& text) {
    return metadata(layer_methods, Json{{"unet.linear", text}}.dump());
  };
  return {
      {"OwnMethodEmpty", lora, other(""), unsupported, "there is no method \"\""},
      {"OwnMethodVeryLong", lora, other(std::string(1 << 20, 'l')), unsupported, "its method"},
      {"OwnMethodOfSpaces", lora, other(std::string(1 << 20, ' ') + "lora(rank=2)"), unsupported,
       "its method"},
      {"OwnTwoResiduals", lora, other("lora(rank=1)+loha(rank=1)"), unsupported, "two residuals"},
      {"OwnRankNaN", lora, other("lora(rank=nan)"), unsupported, "must be a number"},
      {"OwnRankInfinite", lora, other("lora(rank=1e999)"), unsupported, "must be a number"},
      {"OwnRankFraction", lora, other("lora(rank=1.5)"), unsupported, "whole number"},
      {"OwnAlphaZero", lora, other("lora(rank=2,alpha=0)"), unsupported, "above 0"},
      {"OwnOptionTwice", lora, other("lora(rank=2,rank=2)"), unsupported, "given twice"},
      {"OwnOpenBracket", lora, other("lora(rank=2"), unsupported, "closing bracket"},
      {"OwnAliasOfAliases", lora, other("glora(rank=1)+glora(rank=1)"), unsupported,
       "two residuals"},
      {"OwnLayerMethodNoText", lora, metadata(layer_methods, R"({"unet.linear":7})"), bad_format,
       "is no text"},
      {"OwnLayerMethodList", lora, metadata(layer_methods, "[]"), bad_format, "is no JSON object"},
      {"OwnLayerMethodTwice", lora,
       metadata(layer_methods, R"({"unet.linear":"bias","unet.linear":"bias"})"), bad_format,
       "appears twice"},
      {"OwnLayerMethodHuge", lora, linear_is("lora(rank=2147483648)"), unsupported,
       "rank=2147483648"},
      {"OwnLayerMethodLarger", lora, linear_is("lora(rank=999)"), bad_format,
       "fewer than lora(alpha=999,rank=999)"},
      {"OwnLayerMethodOther", lora, linear_is("diagonal"), bad_format,
       "transform.scale\" is missing"},
      {"OwnLayerMethodUnknown", lora, linear_is("../lora"), unsupported, "there is no method"},
      {"OwnLayerMethodEmptyName", lora, metadata(layer_methods, R"({"":"lora"})"), bad_format,
       "method"},
      {"OwnSplitNoPair", "own lokr(rank=1)", other("lokr(rank=1,out=8)"), bad_format, "is no pair"},
      {"OwnSplitOfAnother", "own lokr(rank=1)", other("lokr(rank=1,out=2x3,in=2x3)"), bad_format,
       "do not make a weight"},
      {"OwnSplitOverflows", "own lokr(rank=1)",
       other("lokr(rank=1,out=2147483647x2147483647,in=2147483647x2147483647,w1=full,w2=full)"),
       bad_format, "too large"},
      {"OwnBoftOfAnother", "own lora(rank=40)", other("boft(block=7,factors=2)"), unsupported,
       "do not exist"},
      {"OwnManyTerms", "own oft(block=4)", other("oft(block=4,cayley=neumann,terms=1000000)"),
       unsupported, "at most 64 terms"},
      {"OwnPissaOfTooHighRank", "own lora(rank=60)", other("lora(rank=20,init=pissa)"), unsupported,
       "no more ranks than the weight"},
      // 1 GB, were they built
      {"OwnVeraHugeRank", "own lora(rank=2)",
       both(other("vera(rank=1000000)"), set("spare", at::zeros({3000000}, at::kHalf))),
       unsupported, "vera"},
      {"OwnVeraOfManySeeds", "own lora(rank=2)",
       [=](Content& content) {
         Json shapes, methods;
         int seed = 0;
         for (const char* name : {"linear", "wide", "conv", "bare", kToQ}) {
           const std::string full = "unet." + std::string(name);
           methods[full] = "vera(rank=256,seed=" + std::to_string(seed++) + ")";
           shapes[full] = std::string(name) == "wide"   ? Json{64, 56}
                          : std::string(name) == "conv" ? Json{12, 8, 3, 3}
                                                        : Json{40, 48};
         }
         content.metadata["ringlet.base_shapes"] = shapes.dump();
         content.metadata[layer_methods] = methods.dump();
         content.tensors["spare"] = at::zeros({10000});
       },
       unsupported, "different random matrices"},
      {"OwnFloat8", lora, to(l + "residual.up", at::kFloat8_e5m2), bad_format, "type"},
      {"OwnScalar", lora, set(l + "residual.up", at::tensor(1.0F)), bad_format, "fewer than"},
      {"OwnTransposed", "own lora(rank=2)+bias", set(l + "residual.up", at::ones({2, 40})),
       bad_format, "has shape [2, 40] instead of [40, 2]"},
      {"OwnBiasWithoutABias", "own lora(rank=2)",
       metadata("ringlet.base_shapes", R"({"unet.bare":[40,48]})"), bad_format, "is missing"},
      {"OwnHraZero", "own hra(rank=2)", fill(l + "transform.u", 0.0), non_finite, "unet.linear"},
      {"OwnHraTooLong", "own hra(rank=2)", fill(l + "transform.u", 1e30), non_finite,
       "unet.linear"},
      {"OwnOftTooLarge", "own oft(block=3)",
       [=](Content& content) {
         content.tensors.at(l + "transform.blocks") = at::randn({16, 3}) * 1e30F;
       },
       non_finite, "unet.linear"},
      {"OwnChainIncomplete", chain, drop(l + "transform_2.u"), bad_format, "fewer than"},
      {"OwnChainOfOthers", chain,
       both(drop(l + "transform_2.u"), set(l + "transform_5.u", at::ones({48, 2}))), bad_format,
       "transform_2.u\" is missing"},
      {"OwnChainTooMuch", chain, set(l + "transform_5.u", at::ones({48, 2})), bad_format,
       "belongs to none"},
      {"OwnChainShorter", chain, other("oft(block=4)+lora(rank=1)"), bad_format, "belongs to none"},
      {"OwnChainSwapped", chain,
       [=](Content& content) {
         std::swap(content.tensors.at(l + "transform.blocks"),
                   content.tensors.at(l + "transform_2.u"));
       },
       bad_format, "has shape"},
      {"OwnNormOfOtherLength", lora,
       metadata("ringlet.base_shapes", R"({"unet.layer_norm.weight":[47]})"), mismatch,
       "has shape [47] in the file, [48] in the model"},
      {"OwnShapesTwice", lora,
       metadata("ringlet.base_shapes", R"({"unet.linear":[40,48],"unet.linear":[40,48]})"),
       bad_format, "appears twice"},
      {"OwnShapesOverflow", lora,
       metadata("ringlet.base_shapes", R"({"unet.linear":[9223372036854775807,48]})"), mismatch,
       "in the file"},
      {"OwnLayerClimbs", lora, metadata("ringlet.base_shapes", R"({"../unet.linear":[40,48]})"),
       mismatch, "the model has no \"\""},
      {"OwnLayerVeryLong", lora,
       metadata("ringlet.base_shapes", "{\"unet." + std::string(100000, 'x') + "\":[40,48]}"),
       bad_format, "names a layer by 100005 letters"},
  };
}

std::vector<Case> all_cases() {
  std::vector<Case> all;
  for (const auto& some :
       {low_rank_cases(), name_cases(), lycoris_cases(), peft_cases(), own_cases()})
    all.insert(all.end(), some.begin(), some.end());
  return all;
}

/// The message is the reader's own: short, printable, without LibTorch's inside.
void expect_proper(const Error& error) {
  constexpr std::size_t kLong = 1500;
  const std::string message = error.what();
  EXPECT_NE(error.code(), ErrorCode::internal) << message;
  EXPECT_NE(error.code(), ErrorCode::out_of_memory) << message;
  EXPECT_NE(error.code(), ErrorCode::invalid_argument) << message;  // nobody gave an argument
  EXPECT_FALSE(error.where().empty());
  EXPECT_FALSE(error.message().empty());
  EXPECT_LT(message.size(), kLong) << message.substr(0, kLong);
  for (const char* inside :
       {"c10", "at::", "Tensor", "Exception", ".cpp", "defect", "json.exception"})
    EXPECT_EQ(message.find(inside), std::string::npos) << message;
  for (const char letter : message) EXPECT_TRUE(letter == '\n' || letter < 0 || letter >= ' ');
}

class AdapterReaderFault : public testing::TestWithParam<Case> {};

TEST_P(AdapterReaderFault, IsRefusedBeforeAnythingChanges) {
  const Case& one = GetParam();
  at::manual_seed(1);
  const TemporaryFolder folder;
  const Network network;
  Content content = good(one.what);
  EXPECT_NO_THROW(read_adapter(content.write(folder), network.components()));  // right before
  one.damage(content);
  const fs::path path = content.write(folder);
  try {
    read_adapter(path, network.components());
    ADD_FAILURE() << "was taken";
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(one.code)) << error.what();
    EXPECT_NE(std::string(error.what()).find(one.words), std::string::npos) << error.what();
    expect_proper(error);
  }
  network.expect_untouched();
}

INSTANTIATE_TEST_SUITE_P(All, AdapterReaderFault, testing::ValuesIn(all_cases()),
                         [](const auto& one) { return one.param.name; });

/// What is unusual, but not wrong.
class UnusualAdapters : public testing::Test {
 protected:
  std::string spec(const std::string& what, const std::function<void(Content&)>& change) const {
    Content content = good(what);
    change(content);
    ReadAdapter read = read_adapter(content.write(folder_), network_.components());
    for (const auto& entry : read.set.entries())
      EXPECT_TRUE(
          at::isfinite(entry.adapter->weight(entry.target.layer->weight())).all().item<bool>());
    for (const auto& entry : read.set.entries())
      if (entry.target.name == "linear") return entry.adapter->spec();
    return "";
  }

  TemporaryFolder folder_;
  Network network_;
};

TEST_F(UnusualAdapters, AlphaOfEveryKind) {
  const std::string file = "lycoris_kohya_locon", alpha = "lora_unet_linear.alpha";
  EXPECT_EQ(spec(file, set(alpha, at::tensor(0.0F))), "lora(alpha=4,rank=4)");
  EXPECT_EQ(spec(file, set(alpha, at::tensor(-0.0F))), "lora(alpha=4,rank=4)");
  EXPECT_EQ(spec(file, drop(alpha)), "lora(alpha=4,rank=4)");
  EXPECT_EQ(spec(file, set(alpha, at::tensor(3))), "lora(alpha=3,rank=4)");
  EXPECT_EQ(spec(file, set(alpha, at::tensor({2.5}, at::kDouble))), "lora(alpha=2.5,rank=4)");
  EXPECT_EQ(spec(file, set(alpha, at::tensor(2, at::kByte))), "lora(alpha=2,rank=4)");
}

TEST_F(UnusualAdapters, AlphaOfTwoWholeFactorsMeansNothing) {
  for (const double alpha : {-1.0, 0.0, 1e30, -1e30, 1e300, 0.5})
    EXPECT_EQ(
        spec("lycoris_lokr_full", set("lycoris_linear.alpha", at::tensor({alpha}, at::kDouble))),
        "lokr(alpha=1,in=6x8,out=5x8,rank=1,w1=full,w2=full)")
        << alpha;
}

TEST_F(UnusualAdapters, DoublesAreFloatsWhereTheyFit) {
  EXPECT_EQ(spec("lycoris_kohya_locon", to("lora_unet_linear.lora_up.weight", at::kDouble)),
            "lora(alpha=2,rank=4)");
}

// Backtracking would take 2^n steps for these.
TEST_F(UnusualAdapters, PatternsTakeNoLongerThanTheyAreLong) {
  const auto patterns = [](const std::string& key) {
    return [key](Content& content) { content.config["alpha_pattern"] = {{key, 3}}; };
  };
  const std::string none = "lora(alpha=2,rank=4)", found = "lora(alpha=3,rank=4)";
  EXPECT_EQ(spec("peft_lora", patterns("(([a-z]*)*)*!")), none);
  EXPECT_EQ(spec("peft_lora", patterns("(.|.|.)*(.|.|.)*(.|.|.)*!")), none);
  std::string nested = "[a-z]!";
  while (nested.size() < 120) nested = "(?:.*" + nested + ")+";
  EXPECT_EQ(spec("peft_lora", patterns(nested)), none);
  // PEFT's keys are expressions for the end of the path, dots included.
  EXPECT_EQ(spec("peft_lora", patterns("linear")), found);
  EXPECT_EQ(spec("peft_lora", patterns("l.near")), found);
  EXPECT_EQ(spec("peft_lora", patterns("^l[hi]n.*")), found);
  EXPECT_EQ(spec("peft_lora", patterns("(conv|linear)")), found);
  EXPECT_EQ(spec("peft_lora", patterns("inear")), none);
  EXPECT_EQ(spec("peft_lora", patterns("linear.")), none);
  EXPECT_EQ(spec("peft_lora", patterns("x.linear")), none);
  EXPECT_EQ(spec("peft_lora", patterns("")), none);
}

TEST_F(UnusualAdapters, FoldersThatAreIncomplete) {
  const auto refuse = [&](ErrorCode code, const std::string& words) {
    expect_error(code, words, [&] { read_adapter(folder_.path(), network_.components()); });
    network_.expect_untouched();
  };
  refuse(ErrorCode::not_found, "adapter_config.json");
  const Content content = good("peft_lora");
  content.write(folder_);
  fs::remove(folder_ / "adapter_model.safetensors");
  refuse(ErrorCode::not_found, "adapter_model.safetensors");
  std::ofstream(folder_ / "adapter_model.safetensors")
      << "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
  refuse(ErrorCode::unsupported, "Git LFS");
  content.write(folder_);
  fs::remove(folder_ / "adapter_config.json");
  fs::create_directory(folder_ / "adapter_config.json");
  EXPECT_THROW(read_adapter(folder_.path(), network_.components()), Error);
}

/// Golden files by name, a part of them: one of each form.
class DamagedAdapters : public testing::TestWithParam<std::string> {};

// Every text of the file is hit: names, types, shapes, metadata, the configuration.
TEST_P(DamagedAdapters, FlippedBits) {
  const TemporaryFolder folder;
  const Network network;
  const fs::path written = good(GetParam()).write(folder);
  RandomStream random = Random(23).stream(GetParam());
  int refused = 0;
  for (const char* name : {"adapter_model.safetensors", "adapter_config.json"}) {
    const fs::path path = folder / name;
    if (!fs::exists(path)) continue;
    const std::string whole = file_content(path);
    for (int i = 0; i < 60; ++i) {
      std::string damaged = whole;
      const std::size_t at =
          random.uniform_int(i % 4 > 0 ? std::min<std::size_t>(1000, whole.size()) : whole.size());
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << random.uniform_int(8)));
      std::ofstream(path, std::ios::binary) << damaged;
      try {
        const ReadAdapter read = read_adapter(written, network.components());
        static_cast<void>(read.set.merged_weights());
      } catch (const Error& error) {
        expect_proper(error);
        ++refused;
      }
      network.expect_untouched();
    }
    std::ofstream(path, std::ios::binary) << whole;
  }
  EXPECT_GT(refused, 10);
}

INSTANTIATE_TEST_SUITE_P(
    Some, DamagedAdapters,
    testing::Values("peft_lora_patterns", "peft_adalora", "peft_loha", "peft_lokr_both",
                    "peft_oft_coft", "peft_boft_m2", "peft_hra", "peft_ia3_feedforward",
                    "peft_fourierft", "peft_vera", "peft_lora_pissa", "diffusers_current",
                    "diffusers_kohya", "lycoris_loha_tucker", "lycoris_lokr_tucker",
                    "lycoris_boft_rescaled", "lycoris_glora", "lycoris_ia3_output", "lycoris_full",
                    "lycoris_norm", "cloneofsimo", "own trm+tr", "own oft+lora+magnitude"),
    [](const auto& one) {
      std::string name = one.param;
      for (char& letter : name)
        if (std::isalnum(static_cast<unsigned char>(letter)) == 0) letter = '_';
      return name;
    });

}  // namespace
}  // namespace ringlet::formats
