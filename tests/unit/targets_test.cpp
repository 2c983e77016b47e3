#include "ringlet/adapt/set/targets.h"

#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "ringlet/models/diffusion/unet.h"
#include "ringlet/models/text/clip_text.h"
#include "ringlet/nn/weight_store.h"
#include "tests/expect_error.h"

namespace ringlet::adapt {
namespace {

using Names = std::vector<std::string>;

const std::string kBlock = "down_blocks.0.attentions.0.transformer_blocks.0.";
const std::string kText = "text_model.encoder.layers.0.";

/// Layers of tiny sizes under the names of a U-Net and two text encoders.
class Targets : public testing::Test {
 protected:
  Targets() {
    for (const std::string attention : {"attn1.", "attn2."})
      for (const std::string projection : {"to_q", "to_k", "to_v", "to_out.0"})
        linear(unet_, kBlock + attention + projection);
    linear(unet_, kBlock + "ff.net.0.proj");
    linear(unet_, kBlock + "ff.net.2");
    linear(unet_, "time_embedding.linear_1");
    convolution(unet_, "conv_in");
    convolution(unet_, "down_blocks.0.attentions.0.proj_in");
    for (nn::ModuleIndex* text : {&text_encoder_, &text_encoder_2_}) {
      for (const std::string projection : {"q_proj", "k_proj", "v_proj", "out_proj"})
        linear(*text, kText + "self_attn." + projection);
      linear(*text, kText + "mlp.fc1");
      linear(*text, kText + "mlp.fc2");
    }
    linear(text_encoder_2_, "text_projection");
  }

  static void linear(nn::ModuleIndex& index, const std::string& name) {
    index.layers[name] = std::make_shared<nn::LinearLayer>(at::ones({2, 2}), at::Tensor());
  }
  static void convolution(nn::ModuleIndex& index, const std::string& name) {
    index.layers[name] = std::make_shared<nn::Conv2dLayer>(at::ones({2, 2, 1, 1}), at::ones({2}),
                                                           nn::Conv2dOptions{});
  }

  Names select(const TargetOptions& options) const {
    Names names;
    for (const Target& target : select_targets(components_, options)) {
      EXPECT_EQ(target.layer, components_.at(target.component)->layers.at(target.name));
      names.push_back(target.full_name());
    }
    return names;
  }

  void expect_invalid(const std::string& words, const TargetOptions& options) const {
    expect_error(ErrorCode::invalid_argument, words, [&] { select(options); });
  }

  nn::ModuleIndex unet_, text_encoder_, text_encoder_2_;
  Components components_ = {
      {"unet", &unet_}, {"text_encoder", &text_encoder_}, {"text_encoder_2", &text_encoder_2_}};
};

TEST_F(Targets, PresetsSelectWhatTheirNamesSay) {
  Names attention;
  for (const std::string layer : {"attn1.to_k", "attn1.to_out.0", "attn1.to_q", "attn1.to_v",
                                  "attn2.to_k", "attn2.to_out.0", "attn2.to_q", "attn2.to_v"})
    attention.push_back("unet." + kBlock + layer);
  EXPECT_EQ(select({.presets = {"attention"}}), attention);
  EXPECT_EQ(select({}), attention);  // the default

  Names more = attention;
  more.push_back("unet." + kBlock + "ff.net.0.proj");
  more.push_back("unet." + kBlock + "ff.net.2");
  EXPECT_EQ(select({.presets = {"attention+ff"}}), more);

  more.push_back("unet.time_embedding.linear_1");
  EXPECT_EQ(select({.presets = {"all-linear"}}), more);

  const Names all = select({.presets = {"all"}});
  EXPECT_EQ(all.size(), unet_.layers.size());
  EXPECT_EQ(all.front(), "unet.conv_in");

  const Names text = select({.presets = {"text-encoder"}});
  EXPECT_EQ(text.size(), 12u);
  EXPECT_EQ(text.front(), "text_encoder." + kText + "mlp.fc1");
  EXPECT_EQ(text.back(), "text_encoder_2." + kText + "self_attn.v_proj");
}

TEST_F(Targets, PresetsAndPatternsAddUpSortedAndWithoutRepeats) {
  const Names names =
      select({.presets = {"text-encoder", "attention", "attention+ff"}, .include = {"*.conv_in"}});
  EXPECT_EQ(names.size(), 12u + 10u + 1u);
  EXPECT_TRUE(std::ranges::is_sorted(names));
}

TEST_F(Targets, AnIncludePatternAloneSelectsNothingElse) {
  EXPECT_EQ(select({.include = {"unet.*.attn2.to_?"}}),
            (Names{"unet." + kBlock + "attn2.to_k", "unet." + kBlock + "attn2.to_q",
                   "unet." + kBlock + "attn2.to_v"}));
  EXPECT_EQ(select({.include = {"text_encoder_2.text_projection"}}),
            Names{"text_encoder_2.text_projection"});
  EXPECT_EQ(select({.include = {"*"}}).size(), unet_.layers.size() + 6 + 7);
}

TEST_F(Targets, GlobsMatchTheWholeNameAndRegularExpressionsAnyPart) {
  EXPECT_EQ(select({.include = {"*onv_*i?"}}), Names{"unet.conv_in"});
  expect_invalid("\"conv_in\" matches no layer", {.include = {"conv_in"}});
  expect_invalid("matches no layer", {.include = {"unet.conv_i"}});
  expect_invalid("matches no layer", {.include = {"unet.conv_in?"}});
  expect_invalid("matches no layer", {.include = {""}});
  EXPECT_EQ(select({.include = {"re:conv_in"}}), Names{"unet.conv_in"});
  EXPECT_EQ(select({.include = {"re:attn[12]\\.to_(k|v)$"}}).size(), 4u);
  expect_invalid("matches no layer", {.include = {"re:^conv_in"}});
}

TEST_F(Targets, ExcludePatternsRemove) {
  EXPECT_EQ(select({.exclude = {"*.attn2.*", "re:to_out"}}),
            (Names{"unet." + kBlock + "attn1.to_k", "unet." + kBlock + "attn1.to_q",
                   "unet." + kBlock + "attn1.to_v"}));
  EXPECT_EQ(select({.include = {"unet.conv_in"}, .exclude = {"*.to_q"}}), Names{"unet.conv_in"});
  expect_invalid("exclude: excludes every selected layer", {.exclude = {"unet.*"}});
}

TEST_F(Targets, WrongPresetsAreNamedWithTheNearest) {
  expect_invalid("there is no preset \"atention\"", {.presets = {"atention"}});
  expect_invalid("did you mean \"attention\"?", {.presets = {"atention"}});
  expect_invalid("known: attention, attention+ff, all-linear, all, embedding, text-encoder",
                 {.presets = {"everything-at-once"}});
  components_.erase("text_encoder");
  components_.erase("text_encoder_2");
  expect_invalid("preset \"text-encoder\" matches no layer", {.presets = {"text-encoder"}});
  expect_invalid("the model's parts are: unet", {.presets = {"text-encoder"}});
}

TEST_F(Targets, PatternsThatMatchNothingShowUpToThreeNames) {
  // A typing error in the whole name,
  expect_invalid("include: \"unet.conv_im\" matches no layer", {.include = {"unet.conv_im"}});
  expect_invalid("named like unet.conv_in", {.include = {"unet.conv_im"}});
  // in its last part,
  expect_invalid("named like unet." + kBlock + "attn1.to_q, unet." + kBlock + "attn2.to_q",
                 {.include = {"*.to_qq"}});
  expect_invalid("text_encoder_2.text_projection", {.include = {"re:.*.text_projektion"}});
  // and a word that is like none: some names all the same.
  expect_invalid("named like text_encoder." + kText + "mlp.fc1, text_encoder." + kText +
                     "mlp.fc2, text_encoder." + kText + "self_attn.k_proj",
                 {.include = {"*.zzzzzzzzzzzz"}});
  expect_invalid("exclude: \"*.to_w.x\" matches no layer", {.exclude = {"*.to_w.x"}});
}

TEST_F(Targets, ABrokenRegularExpressionIsNamed) {
  expect_invalid("include: \"re:to_(q\" is not a usable regular expression",
                 {.include = {"re:to_(q"}});
  expect_invalid("exclude: \"re:[\" is not a usable regular expression", {.exclude = {"re:["}});
}

TEST_F(Targets, OtherComponentsAreReachedByPatterns) {
  nn::ModuleIndex vae;
  linear(vae, "mid_block.attentions.0.to_q");
  components_["vae"] = &vae;
  EXPECT_EQ(select({.presets = {"all-linear"}, .include = {"vae.*"}}).back(),
            "vae.mid_block.attentions.0.to_q");
}

// Stable Diffusion 1.5 by its own constructors, on weights that take no memory.
class NoMemoryStore final : public nn::TensorStore {
 public:
  std::optional<at::Tensor> find(const std::string&, const nn::Shape& shape,
                                 const nn::Init&) const override {
    return at::ones({1}).expand(shape);
  }
  std::vector<std::string> names() const override { return {}; }
  std::string description() const override { return "no memory"; }
};

TEST(TargetsOfStableDiffusion15, AreAsManyAsInThePapers) {
  const auto store = std::make_shared<NoMemoryStore>();
  const nn::WeightSource unet_source(store), text_source(store);
  const Json config = {
      {"block_out_channels", {320, 640, 1280, 1280}},
      {"cross_attention_dim", 768},
      {"attention_head_dim", 8},
      {"layers_per_block", 2},
      {"down_block_types",
       {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"}},
      {"up_block_types",
       {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"}}};
  const models::UNet unet(unet_source, models::UNetConfig::from_json(config, "config.json"));
  const models::ClipTextModel text(text_source, models::ClipTextConfig{});
  const nn::ModuleIndex unet_index = unet_source.finish(), text_index = text_source.finish();
  const Components components = {{"unet", &unet_index}, {"text_encoder", &text_index}};
  EXPECT_EQ(select_targets(components, {}).size(), 128u);
  EXPECT_EQ(select_targets(components, {.presets = {"attention+ff"}}).size(), 128u + 32u);
  EXPECT_EQ(select_targets(components, {.presets = {"text-encoder"}}).size(), 12u * 6u);
  EXPECT_EQ(select_targets(components, {.presets = {"all"}}).size(), unet_index.layers.size());
}

}  // namespace
}  // namespace ringlet::adapt
