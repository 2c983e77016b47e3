#include "ringlet/models/vision/resnet.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "ringlet/nn/weight_store.h"
#include "tests/expect_error.h"
#include "tests/golden/formula.h"

namespace ringlet::models {
namespace {

using golden::uniform;

Json small() {
  return {
      {"model_type", "resnet"}, {"blocks", {1, 2, 1, 1}}, {"width", 4}, {"small_pictures", true}};
}

/// What a ResNet of this config.json is made of, as a checkpoint in memory.
std::map<std::string, at::Tensor> checkpoint(const Json& json) {
  const nn::WeightSource source(std::make_shared<nn::RandomStore>(1));
  const ResNet network(source, ResNetConfig::from_json(json, "config.json"), 3);
  return source.finish().tensors;
}

ResNetConfig deduced(std::map<std::string, at::Tensor> tensors) {
  return ResNetConfig::deduce(nn::MapStore(std::move(tensors), "model.safetensors"));
}

TEST(ResNetConfig, WrongSettingsAreErrors) {
  const auto refused = [](ErrorCode code, std::string_view words, const char* key, Json value) {
    Json json = small();
    json[key] = std::move(value);
    expect_error(code, words, [&] { ResNetConfig::from_json(json, "config.json"); });
  };
  refused(ErrorCode::unsupported, "is not a ResNet", "model_type", "vit");
  refused(ErrorCode::unsupported, "four stages", "hidden_sizes", {256, 512});
  refused(ErrorCode::unsupported, "\"resnet20\" is not known", "architecture", "resnet20");
  refused(ErrorCode::bad_format, "four positive numbers", "blocks", {2, 2, 2});
  refused(ErrorCode::bad_format, "four positive numbers", "blocks", {2, 2, 0, 2});
  refused(ErrorCode::bad_format, "must be positive", "width", 0);
}

TEST(ResNetConfig, IsDeducedFromACheckpoint) {
  for (const bool bottleneck : {false, true})
    for (const bool pictures : {false, true}) {
      Json json = small();
      json["bottleneck"] = bottleneck;
      json["small_pictures"] = pictures;
      const ResNetConfig want = ResNetConfig::from_json(json, "config.json");
      const ResNetConfig found = deduced(checkpoint(json));
      EXPECT_EQ(found.blocks, want.blocks);
      EXPECT_EQ(found.width, want.width);
      EXPECT_EQ(found.bottleneck, want.bottleneck);
      EXPECT_EQ(found.small_pictures, want.small_pictures);
      EXPECT_EQ(found.image_size, want.image_size);
    }
}

TEST(ResNetConfig, OtherNetworksAreNotTakenForAResNet) {
  expect_error(ErrorCode::unsupported, "torchvision's names", [] { deduced({}); });
  expect_error(ErrorCode::unsupported, "torchvision's names", [] {
    deduced({{"conv1.weight", at::zeros({4})}});
  });
  std::map<std::string, at::Tensor> three = checkpoint(small());
  std::erase_if(three, [](const auto& entry) { return entry.first.starts_with("layer4."); });
  expect_error(ErrorCode::unsupported, "four stages", [&] { deduced(three); });

  Json json = small();
  json["bottleneck"] = true;
  std::map<std::string, at::Tensor> wide = checkpoint(json);
  wide["layer1.0.conv2.weight"] = at::zeros({8, 8, 3, 3});
  expect_error(ErrorCode::unsupported, "wide or grouped", [&] { deduced(wide); });
}

TEST(ResNet, EveryConvolutionTakesAnAdapter) {
  const nn::WeightSource source(std::make_shared<nn::RandomStore>(1));
  const ResNet network(source, ResNetConfig::from_json(small(), "config.json"), 3);
  const nn::ModuleIndex index = source.finish();
  for (const char* name :
       {"conv1", "layer1.0.conv2", "layer2.0.downsample.0", "layer4.0.conv1", "fc"})
    EXPECT_TRUE(index.layers.contains(name)) << name;
  EXPECT_FALSE(index.layers.contains("bn1"));
}

TEST(ResNet, SmallPicturesKeepTheirSizeAtFirst) {
  const nn::WeightSource source(std::make_shared<nn::RandomStore>(1));
  const ResNet network(source, ResNetConfig::from_json(small(), "config.json"), 3);
  const at::Tensor pixels = uniform("pixels", {2, 3, 9, 12});
  EXPECT_EQ(network.forward(pixels).sizes(), (at::IntArrayRef{2, 3}));
  EXPECT_EQ(network.features(pixels).sizes(), (at::IntArrayRef{2, network.config().features()}));
}

TEST(ResNet, RunningAveragesMoveOnlyWhenAsked) {
  const nn::WeightSource source(std::make_shared<nn::RandomStore>(1), {.trainable = true});
  const ResNet network(source, ResNetConfig::from_json(small(), "config.json"), 3);
  const nn::ModuleIndex index = source.finish();
  const at::Tensor mean = index.tensors.at("layer1.0.bn1.running_mean");
  const at::Tensor before = mean.detach().clone(), pixels = uniform("pixels", {2, 3, 8, 8});
  network.forward(pixels).sum().backward();
  EXPECT_TRUE(at::equal(mean.detach(), before));
  network.forward(pixels, nn::Statistics::batch).sum().backward();
  EXPECT_FALSE(at::equal(mean.detach(), before));
  EXPECT_FALSE(mean.grad().defined());
}

// A frozen network's tensors may be the pages of a file.
TEST(ResNet, RunningAveragesOfAFrozenNetworkDoNotMove) {
  const nn::WeightSource source(std::make_shared<nn::RandomStore>(1));
  const ResNet network(source, ResNetConfig::from_json(small(), "config.json"), 3);
  expect_error(ErrorCode::invalid_argument, "frozen network", [&] {
    network.forward(uniform("pixels", {2, 3, 8, 8}), nn::Statistics::batch);
  });
}

TEST(ResNet, OneNumberPerChannelHasNoVariance) {
  const nn::WeightSource source(std::make_shared<nn::RandomStore>(1), {.trainable = true});
  const ResNet network(source, ResNetConfig::from_json(small(), "config.json"), 3);
  expect_error(ErrorCode::invalid_argument, "one number per channel", [&] {
    network.forward(uniform("pixels", {1, 3, 8, 8}), nn::Statistics::batch);
  });
}

}  // namespace
}  // namespace ringlet::models
