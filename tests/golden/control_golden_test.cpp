// Control networks against diffusers on formula weights (make_control.py).
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/models/diffusion/controlnet.h"
#include "tests/golden/expected.h"
#include "tests/golden/formula.h"

namespace ringlet {
namespace {

constexpr double kControlTolerance = 1e-5;  // relative, fp32, one forward
constexpr double kGradientTolerance = 5e-5;
constexpr double kStrength = 0.75;

/// The formula under names of their own, so that two networks differ.
class PrefixedFormulaStore final : public nn::TensorStore {
 public:
  explicit PrefixedFormulaStore(std::string prefix) : prefix_(std::move(prefix)) {}
  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init&) const override {
    return golden::weight(prefix_ + name, shape);
  }
  std::vector<std::string> names() const override { return {}; }
  std::string description() const override { return "weights by formula"; }

 private:
  std::string prefix_;
};

class ControlGolden : public testing::TestWithParam<std::string>, protected golden::Expected {
 protected:
  ControlGolden() : Expected("control", kControlTolerance) {}
  static nn::WeightSource source(const std::string& prefix, bool trainable = false) {
    return nn::WeightSource(std::make_shared<PrefixedFormulaStore>(prefix),
                            {.trainable = trainable});
  }
  models::UNet unet(const std::string& key) const {
    return {source(""), models::UNetConfig::from_json(configs_.at(key).at("unet"), key)};
  }
  struct Inputs {
    at::Tensor latents, timesteps, text, picture;
    models::AddedConditions added;
  };
  static Inputs inputs(const std::string& key) {
    return {golden::uniform(key + ".latents", {2, 4, 8, 6}),
            at::tensor({3.0, 801.5}, at::kFloat),
            golden::uniform(key + ".text", {2, 7, 12}),
            golden::uniform(key + ".picture", {2, 3, 64, 48}) * 0.5 + 0.5,
            {golden::uniform(key + ".pooled", {2, 20}),
             at::tensor({64, 48, 0, 8, 64, 48}, at::kFloat).repeat({2, 1})}};
  }
};

TEST_P(ControlGolden, ControlNetEqualsDiffusers) {
  const std::string key = GetParam();
  const nn::WeightSource weights = source("control.", /*trainable=*/true);
  const models::ControlNet control(
      weights, models::ControlNetConfig::from_json(configs_.at(key).at("controlnet"), key));
  const nn::ModuleIndex index = weights.finish();
  const Inputs in = inputs(key);
  const models::UNetResiduals residuals =
      control.forward(in.latents, in.timesteps, in.text, in.picture, kStrength, &in.added);
  for (std::size_t i = 0; i < residuals.skips.size(); ++i)
    expect_near(key + ".skip" + std::to_string(i), residuals.skips[i]);
  EXPECT_FALSE(expected_.contains(key + ".skip" + std::to_string(residuals.skips.size())));
  expect_near(key + ".middle", residuals.middle);
  const at::Tensor out =
      unet(key).forward(in.latents, in.timesteps, in.text, &in.added, &residuals);
  expect_near(key + ".out", out);

  out.square().mean().backward();
  std::size_t compared = 0;
  for (const auto& [name, tensor] : index.tensors) {
    const std::string full = key + ".gradient." + name;
    if (!expected_.contains(full)) continue;
    expect_near(full, tensor.grad(), kGradientTolerance);
    ++compared;
  }
  EXPECT_EQ(compared, 5u);
}
INSTANTIATE_TEST_SUITE_P(Configs, ControlGolden,
                         testing::Values("control_sd", "control_bgr", "control_xl"));

TEST_F(ControlGolden, EncoderIsAddedToTheFirstFeatures) {
  at::NoGradGuard no_grad;
  const models::ControlEmbedding encoder(source("encoder."), {4, 8, 12, 16}, 16);
  const Inputs in = inputs("encoder");
  models::UNetResiduals residuals;
  residuals.conv_in = encoder.forward(in.picture);
  expect_near("encoder.hint", residuals.conv_in);
  expect_near("encoder.out",
              unet("control_sd").forward(in.latents, in.timesteps, in.text, nullptr, &residuals));
}

}  // namespace
}  // namespace ringlet
