#include "ringlet/models/diffusion/vae.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "ringlet/models/diffusion/tiling.h"
#include "tests/expect_error.h"
#include "tests/golden/tiny_model.h"

namespace ringlet::models {
namespace {

using golden::uniform;

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

/// The tiny autoencoder: 2 pixels per latent, tiles of 32 pixels.
AutoencoderKL tiny_vae() {
  const nn::WeightSource source(std::make_shared<golden::FormulaStore>());
  const Json& config = golden::pipelines().at("models").at("sd1").at("vae");
  return AutoencoderKL(source, VaeConfig::from_json(config, "config"));
}

at::Tensor enlarge(const at::Tensor& x, std::int64_t up) {
  return x.repeat_interleave(up, 2).repeat_interleave(up, 3);
}

// A code that looks at one latent alone gives the same whether x is tiled or not. That holds for
// every size only if the tiles meet without gap, overlap or shift.
TEST(Tiling, PointwiseDecodingIsExactForEverySizeOfTileAndPicture) {
  for (std::int64_t tile = 1; tile <= 9; ++tile)
    for (std::int64_t h = 1; h <= 20; h += 3)
      for (std::int64_t w = 2; w <= 20; w += 3) {
        const at::Tensor x = uniform("x", {1, 2, h, w});
        const auto code = [](const at::Tensor& z) { return enlarge(z, 8); };
        const at::Tensor tiles = tiled(x, tile, 8, 1, code);
        ASSERT_EQ(tiles.sizes(), code(x).sizes()) << tile << " " << h << "x" << w;
        ASSERT_LE(difference(tiles, code(x)), 1e-6) << tile << " " << h << "x" << w;
      }
}

TEST(Tiling, PointwiseEncodingIsExactForEverySizeOfTileAndPicture) {
  for (std::int64_t tile = 1; tile <= 9; ++tile)
    for (std::int64_t h = 1; h <= 20; h += 3)
      for (std::int64_t w = 2; w <= 20; w += 3) {
        const at::Tensor x = uniform("x", {1, 2, 4 * h, 4 * w});
        const auto code = [](const at::Tensor& z) { return at::avg_pool2d(z, {4, 4}); };
        const at::Tensor tiles = tiled(x, 4 * tile, 1, 4, code);
        ASSERT_EQ(tiles.sizes(), code(x).sizes()) << tile << " " << h << "x" << w;
        ASSERT_LE(difference(tiles, code(x)), 1e-6) << tile << " " << h << "x" << w;
      }
}

TEST(Tiling, NoTileIsLargerThanAskedFor) {
  std::int64_t calls = 0;
  tiled(uniform("x", {1, 1, 50, 33}), 16, 1, 1, [&](const at::Tensor& z) {
    EXPECT_LE(z.size(2), 16);
    EXPECT_LE(z.size(3), 16);
    ++calls;
    return z.clone();
  });
  EXPECT_EQ(calls, 5 * 3);  // strides of 12
}

// Seams: where two tiles disagree, the result fades from one to the other without a jump.
TEST(Tiling, DisagreeingTilesFadeIntoEachOther) {
  double brightness = 0.0;
  const at::Tensor x = uniform("x", {1, 1, 16, 28});
  const at::Tensor row = tiled(
      x, 16, 1, 1, [&](const at::Tensor& z) { return at::full(z.sizes(), brightness++); })[0][0][0];
  EXPECT_EQ(row.size(0), 28);
  EXPECT_EQ(row[0].item<double>(), 0.0);
  const at::Tensor steps = row.slice(0, 1) - row.slice(0, 0, -1);
  EXPECT_GE(steps.min().item<double>(), 0.0);
  EXPECT_LE(steps.max().item<double>(), 0.25 + 1e-6);  // a quarter of a tile is 4 wide
}

/// Of another batch size, which may round otherwise in fp32.
void expect_near(const at::Tensor& actual, const at::Tensor& want) {
  ASSERT_EQ(actual.sizes(), want.sizes());
  EXPECT_LE(difference(actual, want), 1e-5 * want.abs().max().item<double>());
}

TEST(Vae, SlicingChangesNothing) {
  at::NoGradGuard no_grad;
  const AutoencoderKL vae = tiny_vae();
  const at::Tensor latents = uniform("z", {3, 4, 6, 5}), images = uniform("x", {3, 3, 12, 10});
  expect_near(vae.decode(latents, {.slicing = true}), vae.decode(latents));
  expect_near(vae.encode(images, {.slicing = true}).mean, vae.encode(images).mean);
}

TEST(Vae, TilingOfASmallPictureChangesNothing) {
  at::NoGradGuard no_grad;
  const AutoencoderKL vae = tiny_vae();
  const at::Tensor latents = uniform("z", {1, 4, 16, 16});
  EXPECT_TRUE(
      at::equal(vae.decode(latents, {.tile = vae.config().sample_size}), vae.decode(latents)));
}

double correlation(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a - a.mean(), y = b - b.mean();
  return ((x * y).mean() / (x.square().mean() * y.square().mean()).sqrt()).item<double>();
}

// Group norms and the attention see only their tile, so the numbers differ (the golden test pins
// them); but the tiles must lie where they belong, to the pixel.
void expect_in_place(const at::Tensor& tiles, const at::Tensor& whole) {
  ASSERT_EQ(tiles.sizes(), whole.sizes());
  EXPECT_GT(correlation(tiles, whole), 0.9);
  for (const std::int64_t axis : {2, 3})
    for (const std::int64_t shift : {-1, 1})
      EXPECT_LT(correlation(tiles.roll(shift, axis), whole), correlation(tiles, whole) - 0.2);
}

TEST(Vae, TilesOfAnySideAreClose) {
  at::NoGradGuard no_grad;
  const AutoencoderKL vae = tiny_vae();
  const at::Tensor latents = uniform("z", {1, 4, 37, 30}), images = uniform("x", {1, 3, 74, 60});
  for (const std::int64_t side : {std::int64_t{24}, vae.config().sample_size, std::int64_t{50}}) {
    SCOPED_TRACE(side);
    expect_in_place(vae.decode(latents, {.tile = side}), vae.decode(latents));
    expect_in_place(vae.encode(images, {.tile = side}).mean, vae.encode(images).mean);
  }
}

TEST(Vae, ScaleAndUnscaleAreInverse) {
  const AutoencoderKL vae = tiny_vae();
  const at::Tensor latents = uniform("z", {1, 4, 3, 3});
  EXPECT_LE(difference(vae.unscale(vae.scale(latents)), latents), 1e-6);
  EXPECT_LE(difference(vae.scale(latents), 0.18215 * latents), 1e-6);
}

TEST(Vae, SamplesAddNoiseByTheDeviation) {
  const LatentDistribution wide{at::full({1}, 1.0), at::full({1}, 2.0 * std::log(3.0))};
  EXPECT_NEAR(wide.sample(at::full({1}, 2.0)).item<double>(), 1.0 + 3.0 * 2.0, 1e-5);
}

/// The formula's weights, but with an encoder that is wildly sure or unsure.
class ExtremeStore final : public nn::TensorStore {
 public:
  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init&) const override {
    const at::Tensor tensor = golden::weight(name, shape);
    return name == "quant_conv.bias" ? 1e4 * tensor : tensor;
  }
  std::vector<std::string> names() const override { return {}; }
  std::string description() const override { return "extreme weights"; }
};

// exp of an unclamped log variance would be infinite.
TEST(Vae, TheVarianceIsClamped) {
  at::NoGradGuard no_grad;
  const Json& config = golden::pipelines().at("models").at("sd1").at("vae");
  const nn::WeightSource source(std::make_shared<ExtremeStore>());
  const AutoencoderKL vae(source, VaeConfig::from_json(config, "config"));
  const LatentDistribution posterior = vae.encode(uniform("x", {1, 3, 8, 8}));
  EXPECT_EQ(posterior.log_variance.max().item<double>(), 20.0);
  EXPECT_EQ(posterior.log_variance.min().item<double>(), -30.0);
}

TEST(Vae, ForeignAndBrokenConfigurationsAreRefused) {
  const Json good = golden::pipelines().at("models").at("sd1").at("vae");
  const auto expect = [&](ErrorCode code, const char* field, Json value) {
    Json json = good;
    json[field] = std::move(value);
    expect_error(code, "config.json", [&] { VaeConfig::from_json(json, "config.json"); });
  };
  expect(ErrorCode::unsupported, "act_fn", "gelu");
  expect(ErrorCode::unsupported, "latents_mean", {0.0});
  expect(ErrorCode::unsupported, "down_block_types", {"AttnDownEncoderBlock2D"});
  expect(ErrorCode::bad_format, "block_out_channels", Json::array());
  expect(ErrorCode::bad_format, "block_out_channels", {33, 64});
  expect(ErrorCode::bad_format, "block_out_channels", {-32, 64});
  expect(ErrorCode::bad_format, "norm_num_groups", 0);
  expect(ErrorCode::bad_format, "layers_per_block", 0);
  expect(ErrorCode::bad_format, "sample_size", 0);  // the side of a tile
  expect(ErrorCode::bad_format, "sample_size", "512");
}

}  // namespace
}  // namespace ringlet::models
