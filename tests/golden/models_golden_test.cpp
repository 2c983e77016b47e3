// Every model class against diffusers and transformers on formula weights (make_models.py).
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/models/diffusion/unet.h"
#include "ringlet/models/diffusion/vae.h"
#include "ringlet/models/text/clip_text.h"
#include "tests/golden/expected.h"
#include "tests/golden/formula.h"

namespace ringlet {
namespace {

constexpr double kForwardTolerance = 1e-5;  // relative, fp32, one forward

class ModelsGolden : public testing::TestWithParam<std::string>, protected golden::Expected {
 protected:
  ModelsGolden() : Expected("models", kForwardTolerance) {}

  const std::string& key() const { return GetParam(); }
  const Json& config() const { return configs_.at(key()); }
  nn::WeightSource source() const {
    return nn::WeightSource(std::make_shared<golden::FormulaStore>());
  }
  const at::Tensor& expected(const std::string& part) const { return expected_.at(key() + part); }
  at::Tensor input(const std::string& part, const nn::Shape& shape) const {
    return golden::uniform(key() + part, shape);
  }
  void expect_near(const std::string& part, const at::Tensor& actual) const {
    Expected::expect_near(key() + part, actual);
  }
};

using ClipTextGolden = ModelsGolden;
TEST_P(ClipTextGolden, EqualsTransformers) {
  at::NoGradGuard no_grad;
  const models::ClipTextModel model(source(), models::ClipTextConfig::from_json(config(), key()));
  const models::ClipTextOutput out = model.forward(expected(".ids"));
  expect_near(".last", out.last_hidden_state);
  expect_near(".penultimate", out.hidden_states.at(out.hidden_states.size() - 2));
  expect_near(".pooled", out.pooled);
}
INSTANTIATE_TEST_SUITE_P(Configs, ClipTextGolden, testing::Values("clip_l", "clip_g"));

using VaeGolden = ModelsGolden;
TEST_P(VaeGolden, EqualsDiffusers) {
  at::NoGradGuard no_grad;
  const models::AutoencoderKL vae(source(), models::VaeConfig::from_json(config(), key()));
  const std::int64_t scale = vae.config().downscale();
  const at::Tensor images = input(".images", {2, 3, 4 * scale, 3 * scale});
  const at::Tensor latents = input(".latents", {2, vae.config().latent_channels, 4, 3});
  const models::LatentDistribution posterior = vae.encode(images);
  expect_near(".mean", posterior.mean);
  expect_near(".logvar", posterior.log_variance);
  expect_near(".decoded", vae.decode(latents));
  expect_near(".decoded", vae.decode(latents, {.slicing = true}));
}

TEST_P(VaeGolden, TilingEqualsDiffusers) {
  at::NoGradGuard no_grad;
  const models::AutoencoderKL vae(source(), models::VaeConfig::from_json(config(), key()));
  const std::int64_t side = vae.config().sample_size;
  const std::int64_t latent_side = side / vae.config().downscale();
  const at::Tensor big =
      input(".big", {1, vae.config().latent_channels, 2 * latent_side, 2 * latent_side + 1});
  expect_near(".tiled_decoded", vae.decode(big, {.tile = side}));
  const at::Tensor image = input(".big_image", {1, 3, 2 * side, side + 8});
  expect_near(".tiled_mean", vae.encode(image, {.tile = side}).mean);
}
INSTANTIATE_TEST_SUITE_P(Configs, VaeGolden, testing::Values("vae_sd", "vae_small"));

using UNetGolden = ModelsGolden;
TEST_P(UNetGolden, EqualsDiffusers) {
  at::NoGradGuard no_grad;
  const models::UNet unet(source(), models::UNetConfig::from_json(config(), key()));
  const at::Tensor& want = expected(".out");
  const at::Tensor latents =
      input(".latents", {2, unet.config().in_channels, want.size(2), want.size(3)});
  const at::Tensor text = input(".text", {2, 7, unet.config().levels.front().context_width});
  const at::Tensor timesteps = at::tensor({3.0, 801.5}, at::kFloat);
  models::AddedConditions added;
  if (unet.config().text_time) {
    added.pooled_text = input(".pooled", {2, 20});
    added.time_ids = at::tensor({64, 48, 0, 8, 64, 48}, at::kFloat).repeat({2, 1});
  }
  expect_near(".out", unet.forward(latents, timesteps, text, &added));
}
INSTANTIATE_TEST_SUITE_P(Configs, UNetGolden,
                         testing::Values("unet_sd1", "unet_sd2", "unet_sdxl", "unet_inpaint"));

}  // namespace
}  // namespace ringlet
