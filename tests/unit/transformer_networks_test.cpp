// The networks of Stable Diffusion 3 and FLUX: their configurations, what they refuse, and their
// layers.
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "ringlet/models/diffusion/flux_transformer.h"
#include "ringlet/models/diffusion/packed_latents.h"
#include "ringlet/models/diffusion/sd3_transformer.h"
#include "ringlet/models/text/t5_encoder.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/nn/rms_norm.h"
#include "ringlet/nn/weight_store.h"
#include "tests/expect_error.h"
#include "tests/golden/formula.h"

namespace ringlet::models {
namespace {

using golden::uniform;

Json sd3_json() {
  return {{"sample_size", 8},           {"num_layers", 2},           {"attention_head_dim", 8},
          {"num_attention_heads", 2},   {"joint_attention_dim", 12}, {"caption_projection_dim", 16},
          {"pooled_projection_dim", 6}, {"in_channels", 4},          {"pos_embed_max_size", 6}};
}

Json flux_json() {
  return {{"in_channels", 16},          {"num_layers", 1},          {"num_single_layers", 1},
          {"attention_head_dim", 8},    {"num_attention_heads", 2}, {"joint_attention_dim", 12},
          {"pooled_projection_dim", 6}, {"guidance_embeds", true},  {"axes_dims_rope", {2, 2, 4}}};
}

Json t5_json() {
  return {{"vocab_size", 30},
          {"d_model", 16},
          {"d_kv", 4},
          {"d_ff", 20},
          {"num_layers", 2},
          {"num_heads", 2},
          {"feed_forward_proj", "gated-gelu"}};
}

template <class Config>
void expect_refused(const Json& good, ErrorCode code, const Json& changes, const char* words) {
  Json json = good;
  json.update(changes);
  expect_error(code, words, [&] { Config::from_json(json, "config.json"); });
}

TEST(TransformerConfigs, WhatContradictsOrIsNotImplementedIsNamed) {
  constexpr auto kBad = ErrorCode::bad_format, kNot = ErrorCode::unsupported;
  const auto sd3 = [](ErrorCode code, const Json& changes, const char* words) {
    expect_refused<Sd3Config>(sd3_json(), code, changes, words);
  };
  sd3(kBad, {{"caption_projection_dim", 20}}, "2 heads of 8 make a width of 16");
  sd3(kBad, {{"num_layers", 0}}, "num_layers");
  sd3(kBad, {{"dual_attention_layers", {2}}}, "dual_attention_layers");
  sd3(kBad, {{"sample_size", 1}}, "sample_size");
  sd3(kNot, {{"qk_norm", "layer_norm"}}, "qk_norm");
  const auto flux = [](ErrorCode code, const Json& changes, const char* words) {
    expect_refused<FluxConfig>(flux_json(), code, changes, words);
  };
  flux(kBad, {{"axes_dims_rope", {2, 2, 2}}}, "add up to");
  flux(kBad, {{"axes_dims_rope", {4, 4}}}, "three even numbers");
  flux(kBad, {{"axes_dims_rope", {1, 3, 4}}}, "three even numbers");
  flux(kBad, {{"num_single_layers", -1}}, "num_single_layers");
  flux(kNot, {{"patch_size", 2}}, "patch_size");
  const auto t5 = [](ErrorCode code, const Json& changes, const char* words) {
    expect_refused<T5Config>(t5_json(), code, changes, words);
  };
  t5(kNot, {{"feed_forward_proj", "relu"}}, "feed_forward_proj");
  t5(kBad, {{"relative_attention_num_buckets", 30}}, "relative_attention_num_buckets");
  t5(kBad, {{"relative_attention_max_distance", 8}}, "relative_attention_max_distance");
}

TEST(TransformerConfigs, NullsAreTheDefaults) {
  Json sd3 = sd3_json(), flux = flux_json();
  sd3["qk_norm"] = nullptr;
  sd3["out_channels"] = nullptr;
  flux["out_channels"] = nullptr;
  EXPECT_FALSE(Sd3Config::from_json(sd3, "").rms_norm);
  EXPECT_EQ(Sd3Config::from_json(sd3, "").out_channels, 4);
  EXPECT_EQ(FluxConfig::from_json(flux, "").out_channels, 16);
}

nn::WeightSource formula_source(at::ScalarType type = at::kFloat) {
  return nn::WeightSource(std::make_shared<golden::FormulaStore>(), {.dtype = type});
}

Sd3Conditions sd3_conditions() {
  return {.timesteps = at::full({1}, 500.0),
          .text = uniform("text", {1, 3, 12}),
          .pooled = uniform("pooled", {1, 6})};
}

TEST(Sd3Transformer, RefusesWhatItHasNoPlacesOrLayersFor) {
  const Sd3Transformer2DModel network(formula_source(), Sd3Config::from_json(sd3_json(), ""));
  const auto expect = [&](ErrorCode code, const char* words, const nn::Shape& latents,
                          const std::function<void(Sd3Conditions&)>& change) {
    Sd3Conditions conditions = sd3_conditions();
    change(conditions);
    expect_error(code, words, [&] { network.forward(uniform("x", latents), conditions); });
  };
  const auto same = [](Sd3Conditions&) {};
  expect(ErrorCode::invalid_argument, "multiples of 16", {1, 4, 8, 7}, same);
  expect(ErrorCode::invalid_argument, "7 x 4 tokens", {1, 4, 8, 14}, same);
  expect(ErrorCode::mismatch, "width 8, and the network takes 12", {1, 4, 8, 8},
         [](Sd3Conditions& in) {
           in.text = uniform("text", {1, 3, 8});
         });
  expect(ErrorCode::mismatch, "pooled text of width 5", {1, 4, 8, 8}, [](Sd3Conditions& in) {
    in.pooled = uniform("pooled", {1, 5});
  });
}

TEST(Sd3Transformer, TakesTheTableOfItsFileAndAControl) {
  const auto config = Sd3Config::from_json(sd3_json(), "");
  const auto forward = [&](const nn::WeightSource& source, const Sd3Conditions& conditions) {
    at::NoGradGuard no_grad;
    return Sd3Transformer2DModel(source, config).forward(uniform("x", {1, 4, 8, 8}), conditions);
  };
  const at::Tensor plain = forward(formula_source(), sd3_conditions());
  // A constant in the table's place is the same as a constant control beside no table.
  struct TableStore final : nn::TensorStore {
    explicit TableStore(double number) : value(number) {}
    std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                   const nn::Init&) const override {
      return name == "pos_embed.pos_embed" ? at::full(shape, value) : golden::weight(name, shape);
    }
    std::vector<std::string> names() const override { return {"pos_embed.pos_embed"}; }
    std::string description() const override { return "a table"; }
    double value;
  };
  const auto with_table = [](double value) {
    return nn::WeightSource(std::make_shared<TableStore>(value));
  };
  Sd3Conditions controlled = sd3_conditions();
  controlled.control = at::full({1, 16, 16}, 0.5);
  const at::Tensor by_table = forward(with_table(0.5), sd3_conditions());
  EXPECT_TRUE(by_table.equal(forward(with_table(0.0), controlled)));
  EXPECT_GT((by_table - plain).abs().max().item<double>(), 0.01);
}

TEST(FluxTransformer, RefusesAGuidanceThatDoesNotFit) {
  const auto run = [](bool embeds, bool given, const nn::Shape& text) {
    Json json = flux_json();
    json["guidance_embeds"] = embeds;
    const FluxTransformer2DModel network(formula_source(), FluxConfig::from_json(json, ""));
    FluxConditions conditions = {.timesteps = at::full({1}, 500.0),
                                 .text = uniform("text", text),
                                 .pooled = uniform("pooled", {1, 6}),
                                 .positions = packed_positions(4, 4, at::kCPU)};
    if (given) conditions.guidance = at::full({1}, 3.5);
    network.forward(uniform("x", {1, 4, 16}), conditions);
  };
  run(true, true, {1, 3, 12});
  run(false, false, {1, 3, 12});
  expect_error(ErrorCode::invalid_argument, "distilled with guidance", [&] {
    run(true, false, {1, 3, 12});
  });
  expect_error(ErrorCode::invalid_argument, "not told a guidance scale", [&] {
    run(false, true, {1, 3, 12});
  });
  expect_error(ErrorCode::mismatch, "takes 12", [&] { run(true, true, {1, 3, 10}); });
  expect_error(ErrorCode::invalid_argument, "multiples of 16", [] {
    pack_latents(uniform("x", {1, 4, 6, 5}));
  });
}

/// Linear and convolution layers, which adapters go to, and other parameters.
std::pair<std::size_t, std::size_t> counts(const nn::ModuleIndex& index) {
  std::size_t others = 0;
  for (const auto& [name, tensor] : index.tensors) {
    const std::string layer = name.substr(0, name.rfind('.'));
    others += index.layers.contains(layer) ? 0 : 1;
  }
  return {index.layers.size(), others};
}

TEST(TransformerNetworks, EveryLayerHasASlotForAnAdapter) {
  nn::WeightSource source = formula_source();
  const Sd3Transformer2DModel sd3(source, Sd3Config::from_json(sd3_json(), ""));
  // Block 0: 2 norms, 8 of attention, 4 of feed-forwards; block 1 without to_add_out and the text's
  // feed-forward. Around them: patches, time (2), text (2), tokens, norm, projection.
  EXPECT_EQ(counts(source.finish()), (std::pair<std::size_t, std::size_t>{14 + 11 + 8, 0}));
  source = formula_source();
  const FluxTransformer2DModel flux(source, FluxConfig::from_json(flux_json(), ""));
  EXPECT_EQ(counts(source.finish()), (std::pair<std::size_t, std::size_t>{14 + 6 + 10, 6}));
  source = formula_source();
  const T5Encoder t5(source, T5Config::from_json(t5_json(), ""));
  EXPECT_EQ(counts(source.finish()), (std::pair<std::size_t, std::size_t>{2 * 7 + 2, 5}));
}

TEST(TransformerNetworks, CheckpointedPassesAreThePlainOnes) {
  const auto config = Sd3Config::from_json(sd3_json(), "");
  const auto gradient = [&](bool on) {
    const nn::GradientCheckpointing checkpointing(on);
    const Sd3Transformer2DModel network(formula_source(), config);
    const at::Tensor x = uniform("x", {1, 4, 8, 8}).set_requires_grad(true);
    network.forward(x, sd3_conditions()).square().sum().backward();
    return x.grad();
  };
  EXPECT_TRUE(gradient(true).equal(gradient(false)));
}

/// What the three networks compute in a type.
std::vector<at::Tensor> outputs(at::ScalarType type) {
  at::NoGradGuard no_grad;
  const Sd3Transformer2DModel sd3(formula_source(type), Sd3Config::from_json(sd3_json(), ""));
  const FluxTransformer2DModel flux(formula_source(type), FluxConfig::from_json(flux_json(), ""));
  const T5Encoder t5(formula_source(type), T5Config::from_json(t5_json(), ""));
  const FluxConditions conditions = {.timesteps = at::full({1}, 500.0),
                                     .text = uniform("text", {1, 3, 12}),
                                     .pooled = uniform("pooled", {1, 6}),
                                     .positions = packed_positions(4, 4, at::kCPU),
                                     .guidance = at::full({1}, 3.5)};
  return {sd3.forward(uniform("x", {1, 4, 8, 8}).to(type), sd3_conditions()),
          flux.forward(uniform("x", {1, 4, 16}).to(type), conditions),
          t5.forward(at::arange(6).unsqueeze(0))};
}

TEST(TransformerNetworks, ComputeInTheTypeThatIsAskedFor) {
  const auto wide = outputs(at::kFloat), narrow = outputs(at::kBFloat16);
  for (std::size_t i = 0; i < wide.size(); ++i) {
    EXPECT_EQ(narrow[i].scalar_type(), at::kBFloat16) << i;
    const double distance = (narrow[i].to(at::kFloat) - wide[i]).norm().item<double>();
    EXPECT_LE(distance, 0.03 * wide[i].norm().item<double>()) << i;
    EXPECT_GT(distance, 0.0) << i;
  }
}

TEST(T5Encoder, FilesMayHaveTheTableOfWordsTwiceOrUnderTheOtherName) {
  const auto config = T5Config::from_json(t5_json(), "");
  const nn::WeightSource all = formula_source();
  const T5Encoder whole(all, config);
  const std::map<std::string, at::Tensor> tensors = all.finish().tensors;
  const at::Tensor ids = at::arange(6).unsqueeze(0), want = whole.forward(ids);
  const auto expect_same = [&](const std::map<std::string, at::Tensor>& file) {
    const nn::WeightSource source(std::make_shared<nn::MapStore>(file, "file"));
    const T5Encoder network(source, config);
    source.finish();
    EXPECT_TRUE(network.forward(ids).equal(want));
  };
  auto twice = tensors;
  twice["encoder.embed_tokens.weight"] = tensors.at("shared.weight");
  expect_same(twice);
  twice.erase("shared.weight");
  expect_same(twice);
}

TEST(RmsNorm, IsTheFormulaWithGradientsOfGradients) {
  const auto by_formula = [](const at::Tensor& x, const at::Tensor& weight) {
    return x * at::rsqrt(x.square().mean(-1, true) + 1e-3) * weight;
  };
  const auto passes = [](const auto& norm) {
    const at::Tensor x = uniform("x", {2, 3, 5}).set_requires_grad(true);
    const at::Tensor weight = uniform("weight", {5}).set_requires_grad(true);
    const at::Tensor out = norm(x, weight);
    const auto first =
        torch::autograd::grad({out.exp().sum()}, {x, weight}, {}, std::nullopt, true);
    const auto second =
        torch::autograd::grad({first[0].square().sum() + first[1].exp().sum()}, {x, weight});
    return std::vector<at::Tensor>{out.detach(), first[0].detach(), first[1].detach(), second[0],
                                   second[1]};
  };
  const auto found =
      passes([](const at::Tensor& x, const at::Tensor& w) { return nn::rms_norm(x, w, 1e-3); });
  const auto want = passes(by_formula);
  for (std::size_t i = 0; i < want.size(); ++i)
    EXPECT_TRUE(at::allclose(found[i], want[i], 1e-5, 1e-6)) << i;
  const at::Tensor narrow = uniform("x", {2, 5}).to(at::kBFloat16);
  EXPECT_EQ(nn::rms_norm(narrow, uniform("w", {5}), 1e-3).scalar_type(), at::kBFloat16);
}

}  // namespace
}  // namespace ringlet::models
