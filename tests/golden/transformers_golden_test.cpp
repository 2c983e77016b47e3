// The networks of Stable Diffusion 3 and FLUX against diffusers and transformers, forwards and
// backwards, on formula weights (make_transformers.py).
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/models/diffusion/flux_transformer.h"
#include "ringlet/models/diffusion/packed_latents.h"
#include "ringlet/models/diffusion/sd3_transformer.h"
#include "ringlet/models/diffusion/vae.h"
#include "ringlet/models/text/t5_encoder.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "tests/golden/expected.h"
#include "tests/golden/formula.h"

namespace ringlet {
namespace {

constexpr double kTransformerTolerance = 1e-5;  // relative, fp32, forward and backward

class TransformersGolden : public testing::TestWithParam<std::string>, protected golden::Expected {
 protected:
  TransformersGolden()
      : Expected("transformers", kTransformerTolerance),
        source_(std::make_shared<golden::FormulaStore>(), {.trainable = true}) {}

  const std::string& key() const { return GetParam(); }
  const Json& config() const { return configs_.at(key()); }
  at::Tensor input(const std::string& part, const nn::Shape& shape) const {
    return golden::uniform(key() + part, shape);
  }
  at::Tensor leaf(const std::string& part, const nn::Shape& shape) const {
    return input(part, shape).set_requires_grad(true);
  }
  const at::Tensor& expected(const std::string& part) const { return expected_.at(key() + part); }
  void expect_near(const std::string& part, const at::Tensor& actual) const {
    Expected::expect_near(key() + part, actual);
  }

  /// The output, then the gradients of sum(output * cotangent): those of `leaves`, and of every
  /// weight that the file has.
  void expect_passes(const at::Tensor& out, const std::map<std::string, at::Tensor>& leaves) {
    const nn::ModuleIndex index = source_.finish();
    expect_names(index);
    expect_near(".out", out.detach());
    (out * input(".cotangent", out.sizes().vec())).sum().backward();
    for (const auto& [name, tensor] : leaves) expect_near(".gradient." + name, tensor.grad());
    const std::string prefix = key() + ".gradient.";
    std::size_t weights = 0;
    for (const auto& [name, want] : expected_) {
      const auto found = name.starts_with(prefix) ? index.tensors.find(name.substr(prefix.size()))
                                                  : index.tensors.end();
      if (found == index.tensors.end()) continue;
      ++weights;
      expect_near(name.substr(key().size()), found->second.grad());
    }
    EXPECT_GE(weights, 2U);
  }

  void expect_names(const nn::ModuleIndex& index) const {
    std::string names;
    for (const auto& [name, tensor] : index.tensors) names += (names.empty() ? "" : "\n") + name;
    const Json& want = configs_.at("names").at(key());
    EXPECT_EQ(index.tensors.size(), want[0].get<std::size_t>());
    EXPECT_EQ(
        crc32(0, reinterpret_cast<const Bytef*>(names.data()), static_cast<uInt>(names.size())),
        want[1].get<uLong>())
        << names;
  }

  nn::WeightSource source_;
};

using Sd3Golden = TransformersGolden;
TEST_P(Sd3Golden, PassesEqualDiffusers) {
  const auto c = models::Sd3Config::from_json(config(), key());
  const models::Sd3Transformer2DModel network(source_, c);
  const at::Tensor& want = expected(".out");
  const at::Tensor latents = leaf(".latents", {2, c.in_channels, want.size(2), want.size(3)});
  const models::Sd3Conditions conditions = {.timesteps = at::tensor({3.0, 801.5}, at::kFloat),
                                            .text = leaf(".text", {2, 5, c.text_width}),
                                            .pooled = leaf(".pooled", {2, c.pooled_width})};
  const nn::GradientCheckpointing checkpointing(key() == "sd35");
  expect_passes(network.forward(latents, conditions),
                {{"latents", latents}, {"text", conditions.text}, {"pooled", conditions.pooled}});
  const at::Tensor table =
      models::position_table(c.width(), c.table_side, c.sample_size / c.patch_size);
  expect_near(".table", table.slice(1, 0, table.size(1), 7));
}
INSTANTIATE_TEST_SUITE_P(Configs, Sd3Golden, testing::Values("sd3", "sd35"));

using FluxGolden = TransformersGolden;
TEST_P(FluxGolden, PassesEqualDiffusers) {
  const auto c = models::FluxConfig::from_json(config(), key());
  const models::FluxTransformer2DModel network(source_, c);
  const std::int64_t height = key() == "flux_dev" ? 6 : 4, width = key() == "flux_dev" ? 4 : 10;
  const at::Tensor latents = input(".latents", {2, c.in_channels / 4, height, width});
  const at::Tensor packed = models::pack_latents(latents);
  expect_near(".packed", packed);
  EXPECT_TRUE(models::unpack_latents(packed, height, width).equal(latents));
  models::FluxConditions conditions = {
      .timesteps = at::tensor({3.0, 801.5}, at::kFloat),
      .text = leaf(".text", {2, 5, c.text_width}),
      .pooled = leaf(".pooled", {2, c.pooled_width}),
      .positions = models::packed_positions(height, width, latents.device())};
  expect_near(".ids", conditions.positions);
  if (c.guidance_embeds) conditions.guidance = at::tensor({3.5, 1.0}, at::kFloat);
  const at::Tensor start = packed.clone().set_requires_grad(true);
  const nn::GradientCheckpointing checkpointing(key() == "flux_dev");
  expect_passes(network.forward(start, conditions),
                {{"packed", start}, {"text", conditions.text}, {"pooled", conditions.pooled}});
}
INSTANTIATE_TEST_SUITE_P(Configs, FluxGolden, testing::Values("flux_dev", "flux_schnell"));

using T5Golden = TransformersGolden;
TEST_P(T5Golden, PassesEqualTransformers) {
  const auto c = models::T5Config::from_json(config(), key());
  const models::T5Encoder network(source_, c);
  const bool far = key() == "t5_far";
  const std::int64_t length = far ? 130 : 77;
  const at::Tensor ids =
      ((input(".ids", {2, length}) + 1.0) / 2.0 * static_cast<double>(c.vocabulary))
          .floor()
          .to(at::kLong);
  at::Tensor seen;
  if (far) {
    seen = at::ones({2, length}, at::kBool);
    seen[1].slice(0, 90).fill_(false);
  }
  const at::Tensor out = network.forward(ids, seen);
  expect_passes(far ? out.slice(1, 0, length, 9) : out, {});
}
INSTANTIATE_TEST_SUITE_P(Configs, T5Golden, testing::Values("t5", "t5_far"));

using LatentGolden = TransformersGolden;
TEST_P(LatentGolden, AutoencodersOfSixteenChannelsEqualDiffusers) {
  const auto c = models::VaeConfig::from_json(config(), key());
  const models::AutoencoderKL vae(source_, c);
  EXPECT_EQ(c.latent_channels, 16);
  const at::Tensor images = leaf(".images", {1, 3, 3 * c.downscale(), 2 * c.downscale()});
  const models::LatentDistribution posterior = vae.encode(images);
  expect_near(".mean", posterior.mean.detach());
  expect_near(".logvar", posterior.log_variance.detach());
  expect_near(".scaled", vae.scale(posterior.mean).detach());
  (posterior.mean * input(".mean_cotangent", posterior.mean.sizes().vec())).sum().backward();
  expect_near(".gradient.images", images.grad());
  const at::Tensor latents = leaf(".latents", {1, 16, 3, 2});
  expect_passes(vae.decode(latents), {{"latents", latents}});
  EXPECT_LE((vae.unscale(vae.scale(latents)) - latents).abs().max().item<double>(), 1e-6);
}
INSTANTIATE_TEST_SUITE_P(Configs, LatentGolden, testing::Values("vae_sd3", "vae_flux"));

}  // namespace
}  // namespace ringlet
