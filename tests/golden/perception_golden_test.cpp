// ResNet, ViT's classifier, CLIP's loss and wav2vec 2.0 against torchvision and transformers
// (make_perception.py); the metrics of texts and rankings against jiwer, SQuAD's and numpy's.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "ringlet/eval/ranking_metrics.h"
#include "ringlet/eval/text_metrics.h"
#include "ringlet/models/speech/wav2vec2.h"
#include "ringlet/models/vision/clip.h"
#include "ringlet/models/vision/resnet.h"
#include "ringlet/models/vision/vision_transformer.h"
#include "tests/golden/expected.h"
#include "tests/golden/formula.h"

namespace ringlet {
namespace {

constexpr double kPerceptionTolerance = 5e-5;  // relative, fp32, forward and backward

/// Variances are positive.
class PositiveVariances final : public nn::TensorStore {
 public:
  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init&) const override {
    const at::Tensor values = golden::weight(name, shape);
    return name.ends_with("running_var") ? values.abs() + 0.5 : values;
  }
  std::vector<std::string> names() const override { return {}; }
  std::string description() const override { return "weights by formula"; }
};

class PerceptionGolden : public testing::Test, protected golden::Expected {
 protected:
  PerceptionGolden() : Expected("perception", kPerceptionTolerance) {}
  static nn::WeightSource source() {
    return nn::WeightSource(std::make_shared<PositiveVariances>(), {.trainable = true});
  }
};

TEST_F(PerceptionGolden, ResNetsEqualTorchvision) {
  for (const std::string name : {"resnet18", "resnet50"}) {
    const nn::WeightSource weights = source();
    const models::ResNet network(
        weights,
        models::ResNetConfig::from_json({{"model_type", "resnet"}, {"architecture", name}}, name),
        5);
    const nn::ModuleIndex index = weights.finish();
    const at::Tensor scores = network.forward(golden::uniform(name, {2, 3, 64, 64}));
    expect_near(name + ".logits", scores.detach());
    at::logsumexp(scores, 1).sum().backward();
    expect_near(name + ".gradient",
                index.tensors.at("layer2.0.downsample.0.weight").grad().slice(0, 0, 4));
    EXPECT_FALSE(index.tensors.at("bn1.running_mean").grad().defined());
  }
}

// From nothing: the batch's statistics, and what the running averages become.
TEST_F(PerceptionGolden, ALearningResNetEqualsTorchvision) {
  const nn::WeightSource weights = source();
  const models::ResNet network(weights, models::ResNetConfig(), 5);
  const nn::ModuleIndex index = weights.finish();
  const at::Tensor scores =
      network.forward(golden::uniform("resnet18", {2, 3, 64, 64}), nn::Statistics::batch);
  expect_near("learning.logits", scores.detach());
  at::logsumexp(scores, 1).sum().backward();
  expect_near("learning.gradient",
              index.tensors.at("layer2.0.downsample.0.weight").grad().slice(0, 0, 4));
  for (const std::string name : {"bn1", "layer4.1.bn2"})
    for (const std::string part : {".running_mean", ".running_var"})
      expect_near("learning." + name + part,
                  index.tensors.at(name + part).detach().slice(0, 0, 16));
}

TEST_F(PerceptionGolden, VisionClassifierEqualsTransformers) {
  const nn::WeightSource weights = source();
  const models::VisionClassifier network(
      weights, models::VisionConfig::from_json(configs_.at("vit"), "vit"), 3);
  const nn::ModuleIndex index = weights.finish();
  const at::Tensor scores = network.forward(golden::uniform("vit.32", {2, 3, 32, 32}));
  expect_near("vit.classes", scores.detach());
  at::logsumexp(scores, 1).sum().backward();
  expect_near("vit.gradient",
              index.tensors.at("vit.encoder.layer.0.attention.attention.query.weight").grad());
}

TEST_F(PerceptionGolden, ClipLossEqualsTransformers) {
  const nn::WeightSource weights = source();
  const models::Clip clip(weights, models::VisionConfig::from_json(configs_.at("clip"), "clip"),
                          models::ClipTextConfig::from_clip_json(configs_.at("clip"), "clip"));
  const nn::ModuleIndex index = weights.finish();
  const at::Tensor ids =
      at::tensor({58, 5, 17, 3, 59, 59, 59, 59, 59, 58, 9, 2, 59, 59, 59, 59, 59, 59}, at::kLong)
          .view({2, 9});
  const at::Tensor loss = clip.loss(golden::uniform("clip.pair", {2, 3, 32, 32}), ids);
  expect_near("clip.loss", loss.detach().view({1}));
  loss.backward();
  const auto gradient = [&](const char* name) { return index.tensors.at(name).grad(); };
  expect_near("clip.scale_gradient", gradient("logit_scale").view({1}));
  expect_near("clip.text_gradient",
              gradient("text_model.encoder.layers.0.self_attn.q_proj.weight"));
  expect_near("clip.vision_gradient",
              gradient("vision_model.encoder.layers.0.self_attn.v_proj.weight"));
}

TEST_F(PerceptionGolden, SpeechEqualsTransformers) {
  for (const std::string kind : {"group", "layer"}) {
    const auto config = models::Wav2Vec2Config::from_json(configs_.at(kind), kind);
    const nn::WeightSource weights = source();
    const models::Wav2Vec2 network(weights, config);
    const nn::ModuleIndex index = weights.finish();
    at::Tensor sound = golden::uniform("sound." + kind, {2, 640});
    std::vector<std::int64_t> lengths = {640, 640};
    if (kind == "layer") {
      sound[1].slice(0, 500).zero_();
      lengths[1] = 500;
    }
    const at::Tensor scores = network.forward(sound, lengths);
    expect_near("speech." + kind + ".logits", scores.detach());
    const at::Tensor loss =
        models::ctc_loss(scores, {config.frames(lengths[0]), config.frames(lengths[1])},
                         {{3, 4, 4, 7, 2}, {5, 1, 6}}, config.blank);
    expect_near("speech." + kind + ".loss", loss.detach().view({1}));
    loss.backward();
    expect_near("speech." + kind + ".gradient",
                index.tensors.at("wav2vec2.encoder.layers.0.attention.q_proj.weight").grad());
  }
}

TEST_F(PerceptionGolden, AnswersScoreAsInSquad) {
  for (const Json& one : configs_.at("answers")) {
    const eval::AnswerScore score =
        eval::answer_score(one[0].get<std::string>(), one[1].get<std::string>());
    EXPECT_EQ(score.exact, one[2].get<double>()) << one;
    EXPECT_NEAR(score.f1, one[3].get<double>(), 1e-12) << one;
  }
}

TEST_F(PerceptionGolden, ErrorRatesEqualJiwer) {
  std::vector<std::string> said, truth;
  for (const Json& pair : configs_.at("said")) {
    said.push_back(pair[0].get<std::string>());
    truth.push_back(pair[1].get<std::string>());
  }
  EXPECT_NEAR(eval::word_error_rate(said, truth), configs_.at("word error rate").get<double>(),
              1e-12);
  EXPECT_NEAR(eval::character_error_rate(said, truth),
              configs_.at("character error rate").get<double>(), 1e-12);
}

TEST_F(PerceptionGolden, RankingsScoreAsInNumpy) {
  using Numbers = std::vector<std::int64_t>;
  for (const Json& one : configs_.at("rankings")) {
    const eval::RankingScore score = eval::ranking_score(
        one[0].get<Numbers>(), one[1].get<Numbers>(), one[2].get<std::int64_t>());
    EXPECT_NEAR(score.recall, one[3].get<double>(), 1e-12) << one;
    EXPECT_NEAR(score.ndcg, one[4].get<double>(), 1e-12) << one;
  }
}

TEST(CtcDecode, LeavesRepeatsAndBlanksOut) {
  const at::Tensor scores = at::zeros({7, 3});
  const int best[] = {1, 1, 0, 1, 2, 2, 0};
  for (int i = 0; i < 7; ++i) scores[i][best[i]] = 1.0;
  EXPECT_EQ(models::ctc_decode(scores, 0), (std::vector<std::int64_t>{1, 1, 2}));
}

}  // namespace
}  // namespace ringlet
