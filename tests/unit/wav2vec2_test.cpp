#include "ringlet/models/speech/wav2vec2.h"

#include <cmath>
#include <limits>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "ringlet/nn/weight_store.h"
#include "tests/expect_error.h"
#include "tests/golden/formula.h"

namespace ringlet::models {
namespace {

using golden::uniform;

Json tiny(const char* norm) {
  return {{"model_type", "wav2vec2"},
          {"vocab_size", 6},
          {"conv_dim", {4, 6}},
          {"conv_kernel", {10, 3}},
          {"conv_stride", {5, 2}},
          {"conv_bias", true},
          {"feat_extract_norm", norm},
          {"do_stable_layer_norm", std::string(norm) == "layer"},
          {"hidden_size", 8},
          {"num_hidden_layers", 1},
          {"num_attention_heads", 2},
          {"intermediate_size", 12},
          {"num_conv_pos_embeddings", 4},
          {"num_conv_pos_embedding_groups", 2}};
}

nn::WeightSource formula() { return nn::WeightSource(std::make_shared<golden::FormulaStore>()); }

TEST(Wav2Vec2Config, UnknownFormsAreRefused) {
  const auto refused = [](ErrorCode code, std::string_view words, const char* key, Json value) {
    Json json = tiny("group");
    json[key] = std::move(value);
    expect_error(code, words, [&] { Wav2Vec2Config::from_json(json, "config.json"); });
  };
  refused(ErrorCode::unsupported, "model_type \"hubert\"", "model_type", "hubert");
  refused(ErrorCode::unsupported, "feat_extract_norm \"batch\"", "feat_extract_norm", "batch");
  refused(ErrorCode::unsupported, "hidden_act \"relu\"", "hidden_act", "relu");
  refused(ErrorCode::unsupported, "feat_extract_activation", "feat_extract_activation", "relu");
  refused(ErrorCode::unsupported, "built-in adapters", "add_adapter", true);
  refused(ErrorCode::unsupported, "built-in adapters", "adapter_attn_dim", 16);
  refused(ErrorCode::bad_format, "same number of positive values", "conv_dim", {4});
  refused(ErrorCode::bad_format, "same number of positive values", "conv_stride", {5, 0});
  refused(ErrorCode::bad_format, "multiple of the heads", "num_attention_heads", 3);
  refused(ErrorCode::bad_format, "multiple of the heads", "num_conv_pos_embedding_groups", 3);
  refused(ErrorCode::bad_format, "hidden_size must be positive", "hidden_size", 0);
  refused(ErrorCode::bad_format, "pad_token_id is not a token", "pad_token_id", 6);
}

TEST(Wav2Vec2Config, FramesAreThoseOfTheConvolutions) {
  const Wav2Vec2Config published;
  EXPECT_EQ(published.frames(16000), 49);
  EXPECT_EQ(published.frames(400), 1);
  EXPECT_EQ(published.frames(399), 0);
  EXPECT_EQ(published.frames(0), 0);
  EXPECT_EQ(published.frames(-1), 0);
}

TEST(Wav2Vec2, BothNamesOfTheWeightNormAreRead) {
  const at::NoGradGuard no_grad;
  const auto config = Wav2Vec2Config::from_json(tiny("group"), "tiny");
  const nn::WeightSource old = formula();
  const Wav2Vec2 network(old, config);
  std::map<std::string, at::Tensor> renamed;
  const std::string place = "wav2vec2.encoder.pos_conv_embed.conv.";
  for (const auto& [name, tensor] : old.finish().tensors) {
    if (name == place + "weight_g")
      renamed.emplace(place + "parametrizations.weight.original0", tensor);
    else if (name == place + "weight_v")
      renamed.emplace(place + "parametrizations.weight.original1", tensor);
    else
      renamed.emplace(name, tensor);
  }
  renamed.emplace("wav2vec2.masked_spec_embed", at::zeros({8}));
  const nn::WeightSource now(std::make_shared<nn::MapStore>(renamed));
  const Wav2Vec2 same(now, config);
  now.finish();
  const at::Tensor sound = uniform("sound", {1, 90});
  EXPECT_TRUE(at::equal(network.forward(sound, {90}), same.forward(sound, {90})));
}

TEST(Wav2Vec2, ConvolutionsKeepTheCheckpointsShapeAndTakeNoAdapters) {
  const nn::WeightSource source = formula();
  const Wav2Vec2 network(source, Wav2Vec2Config::from_json(tiny("group"), "tiny"));
  const nn::ModuleIndex index = source.finish();
  const std::string first = "wav2vec2.feature_extractor.conv_layers.1.conv";
  EXPECT_EQ(index.tensors.at(first + ".weight").sizes(), (at::IntArrayRef{6, 4, 3}));
  EXPECT_FALSE(index.layers.contains(first));
  EXPECT_TRUE(index.layers.contains("wav2vec2.feature_projection.projection"));
  EXPECT_TRUE(index.layers.contains("wav2vec2.encoder.layers.0.feed_forward.output_dense"));
  EXPECT_TRUE(index.layers.contains("lm_head"));
}

// Sounds of one batch do not hear each other, whatever follows them.
TEST(Wav2Vec2, PaddingChangesNothingWithLayerNorms) {
  const at::NoGradGuard no_grad;
  const auto config = Wav2Vec2Config::from_json(tiny("layer"), "tiny");
  const Wav2Vec2 network(formula(), config);
  const at::Tensor brief = uniform("brief", {1, 70}), lengthy = uniform("lengthy", {1, 130});
  const at::Tensor both = at::cat({at::cat({brief, 5.0 * at::ones({1, 60})}, 1), lengthy});
  const at::Tensor together = network.forward(both, {70, 130});
  const at::Tensor alone = network.forward(brief, {70});
  EXPECT_EQ(alone.size(1), config.frames(70));
  EXPECT_TRUE(at::allclose(together[0].slice(0, 0, alone.size(1)), alone[0], 1e-4, 1e-5));
  EXPECT_TRUE(at::allclose(together[1], network.forward(lengthy, {130})[0], 1e-4, 1e-5));
}

TEST(Wav2Vec2, LengthsThatDoNotFitAreErrors) {
  const Wav2Vec2 network(formula(), Wav2Vec2Config::from_json(tiny("layer"), "tiny"));
  const at::Tensor sound = uniform("sound", {2, 90});
  const auto refused = [&](std::string_view words, const std::vector<std::int64_t>& lengths) {
    expect_error(ErrorCode::invalid_argument, words, [&] { network.forward(sound, lengths); });
  };
  refused("numbers of lengths and sounds differ", {90});
  refused("numbers of lengths and sounds differ", {});
  refused("91 is beyond the 90 samples", {90, 91});
  refused("19 samples is too short", {90, 19});
  refused("0 samples is too short", {0, 90});
}

TEST(CtcLoss, IsTheLikelihoodOfAllPaths) {
  // "1" in two frames: 1 1, 1 blank, blank 1.
  const at::Tensor scores = uniform("scores", {1, 2, 3});
  const at::Tensor p = at::log_softmax(scores, -1)[0].exp();
  const at::Tensor likelihood = p[0][1] * p[1][1] + p[0][1] * p[1][0] + p[0][0] * p[1][1];
  EXPECT_NEAR(ctc_loss(scores, {2}, {{1}}, 0).item<double>(), -std::log(likelihood.item<double>()),
              1e-6);
}

TEST(CtcLoss, ATextThatDoesNotFitItsFramesCountsAsZero) {
  const at::Tensor scores = uniform("scores", {1, 2, 3});
  EXPECT_EQ(ctc_loss(scores, {2}, {{1, 1}}, 0).item<double>(), 0.0);  // wants a blank between
  EXPECT_TRUE(std::isfinite(ctc_loss(scores, {2}, {{}}, 0).item<double>()));
}

TEST(CtcLoss, WrongLettersAndCountsAreErrors) {
  const at::Tensor scores = uniform("scores", {1, 4, 3});
  const auto refused = [&](std::string_view words, const std::vector<std::int64_t>& frames,
                           const std::vector<std::vector<std::int64_t>>& letters,
                           std::int64_t blank = 0) {
    expect_error(ErrorCode::invalid_argument, words,
                 [&] { ctc_loss(scores, frames, letters, blank); });
  };
  refused("letter 3 is not one of 3", {4}, {{1, 3}});
  refused("letter -1", {4}, {{-1}});
  refused("letter 0", {4}, {{0}});
  refused("the blank is not in the vocabulary", {4}, {{1}}, 3);
  refused("5 frames of 4", {5}, {{1}});
  refused("numbers of texts, lengths", {4, 4}, {{1}});
  refused("numbers of texts, lengths", {4}, {{1}, {2}});
}

TEST(CtcDecode, DecodesOneSoundAtATime) {
  expect_error(ErrorCode::invalid_argument, "one sound", [] {
    ctc_decode(at::zeros({1, 2, 3}), 0);
  });
  EXPECT_TRUE(ctc_decode(at::zeros({0, 3}), 0).empty());
}

}  // namespace
}  // namespace ringlet::models
