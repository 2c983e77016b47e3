// Networks that measure pictures against transformers, and PIL's resampling (make_vision.py).
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/eval/pil_resize.h"
#include "ringlet/models/text/clip_text.h"
#include "ringlet/models/vision/inception.h"
#include "ringlet/models/vision/lpips.h"
#include "ringlet/models/vision/segformer.h"
#include "ringlet/models/vision/vision_transformer.h"
#include "tests/golden/expected.h"
#include "tests/golden/formula.h"

namespace ringlet {
namespace {

constexpr double kVisionTolerance = 1e-5;  // relative, fp32, one forward

class VisionGolden : public testing::TestWithParam<std::string>, protected golden::Expected {
 protected:
  VisionGolden() : Expected("vision", kVisionTolerance) {}
  static nn::WeightSource source() {
    return nn::WeightSource(std::make_shared<golden::FormulaStore>());
  }
};

TEST_P(VisionGolden, FeaturesEqualTransformers) {
  const at::NoGradGuard no_grad;
  const std::string key = GetParam();
  const models::VisionTransformer network(source(),
                                          models::VisionConfig::from_json(configs_.at(key), key));
  for (const std::int64_t side : {32, 48}) {
    const std::string name = key + "." + std::to_string(side);
    if (!expected_.contains(name)) continue;  // CLIP is not interpolated
    expect_near(name, network.features(golden::uniform(name, {2, 3, side, side})));
  }
}
INSTANTIATE_TEST_SUITE_P(Networks, VisionGolden, testing::Values("vit", "dinov2", "gated", "clip"));

TEST_F(VisionGolden, ClipTextsEqualTransformers) {
  const at::NoGradGuard no_grad;
  const models::ClipTextModel text(
      source(), models::ClipTextConfig::from_clip_json(configs_.at("clip"), "clip"));
  const at::Tensor ids = at::tensor({58, 5, 17, 3, 59, 59, 59, 59, 59}, at::kLong).unsqueeze(0);
  expect_near("clip.text", text.forward(ids).pooled);
}

/// The formula, but for a variance, which is positive.
class NormStore final : public nn::TensorStore {
 public:
  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init&) const override {
    const at::Tensor values = golden::weight(name, shape);
    return name.ends_with("running_var") ? values.abs() + 0.5 : values;
  }
  std::vector<std::string> names() const override { return {}; }
  std::string description() const override { return "weights by formula"; }
};

TEST_F(VisionGolden, SegformerEqualsTransformers) {
  const at::NoGradGuard no_grad;
  const models::Segformer network(
      nn::WeightSource(std::make_shared<NormStore>()),
      models::SegformerConfig::from_json(configs_.at("segformer"), "segformer"));
  expect_near("segformer", network.forward(golden::uniform("segformer.pixels", {2, 3, 64, 48})));
}

/// Linear weights of LPIPS are positive.
class PositiveStore final : public nn::TensorStore {
 public:
  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init&) const override {
    return golden::weight(name, shape).abs();
  }
  std::vector<std::string> names() const override { return {}; }
  std::string description() const override { return "weights by formula"; }
};

TEST_F(VisionGolden, LpipsEqualsThePublishedPackage) {
  const at::NoGradGuard no_grad;
  const nn::WeightSource linear(std::make_shared<PositiveStore>());
  const auto picture = [](const char* name) { return golden::uniform(name, {2, 3, 64, 64}); };
  for (const auto& [key, kind] : {std::pair{"lpips.alex", models::LpipsBackbone::alexnet},
                                  std::pair{"lpips.vgg", models::LpipsBackbone::vgg16}}) {
    const models::Lpips network(source(), linear, kind);
    expect_near(key, network.distance(picture("lpips.a"), picture("lpips.b")));
    EXPECT_EQ(network.distance(picture("lpips.a"), picture("lpips.a")).max().item<double>(), 0.0);
  }
}

TEST_F(VisionGolden, InceptionEqualsPytorchFid) {
  const at::NoGradGuard no_grad;
  const models::InceptionV3 network(nn::WeightSource(std::make_shared<NormStore>()));
  expect_near("inception", network.features(golden::uniform("inception.pixels", {1, 3, 299, 299})));
}

TEST_F(VisionGolden, FloatingPointResamplingEqualsPil) {
  const at::Tensor bytes =
      (golden::uniform("picture", {37, 53, 3}) * 127.5 + 127.5).to(at::kByte).contiguous();
  const auto* data = bytes.const_data_ptr<std::uint8_t>();
  std::vector<float> made = eval::pil_resize_float({53, 37, {data, data + bytes.numel()}}, 20, 16,
                                                   eval::PilFilter::bicubic);
  expect_near("pil.float.20x16", at::from_blob(made.data(), {16, 20, 3}, at::kFloat));
}

TEST_F(VisionGolden, ResamplingEqualsPilToTheByte) {
  const at::Tensor bytes =
      (golden::uniform("picture", {37, 53, 3}) * 127.5 + 127.5).to(at::kByte).contiguous();
  const auto* data = bytes.const_data_ptr<std::uint8_t>();
  const io::Image picture{53, 37, {data, data + bytes.numel()}};
  for (const auto& [name, filter] : {std::pair{"bilinear", eval::PilFilter::bilinear},
                                     std::pair{"bicubic", eval::PilFilter::bicubic}})
    for (const auto& [width, height] : {std::pair{20, 16}, std::pair{53, 80}, std::pair{101, 37}}) {
      const std::string key =
          std::string("pil.") + name + "." + std::to_string(width) + "x" + std::to_string(height);
      const at::Tensor want = expected_.at(key).contiguous();
      const auto* pixels = want.const_data_ptr<std::uint8_t>();
      EXPECT_EQ(eval::pil_resize(picture, width, height, filter).pixels,
                std::vector<std::uint8_t>(pixels, pixels + want.numel()))
          << key;
    }
}

}  // namespace
}  // namespace ringlet
