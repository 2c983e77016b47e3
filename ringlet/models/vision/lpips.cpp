#include "ringlet/models/vision/lpips.h"

#include <span>
#include <string>

#include <ATen/ops/conv2d.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/tensor.h>

namespace ringlet::models {
namespace {

/// A convolution of a torchvision backbone.
struct Layer {
  std::int64_t number;  ///< in "features"
  std::int64_t in, out, kernel, stride, padding;
  bool pooled, seen;
};

constexpr Layer kAlexNet[] = {{0, 3, 64, 11, 4, 2, false, true},
                              {3, 64, 192, 5, 1, 2, true, true},
                              {6, 192, 384, 3, 1, 1, true, true},
                              {8, 384, 256, 3, 1, 1, false, true},
                              {10, 256, 256, 3, 1, 1, false, true}};

constexpr Layer kVgg16[] = {
    {0, 3, 64, 3, 1, 1, false, false},     {2, 64, 64, 3, 1, 1, false, true},
    {5, 64, 128, 3, 1, 1, true, false},    {7, 128, 128, 3, 1, 1, false, true},
    {10, 128, 256, 3, 1, 1, true, false},  {12, 256, 256, 3, 1, 1, false, false},
    {14, 256, 256, 3, 1, 1, false, true},  {17, 256, 512, 3, 1, 1, true, false},
    {19, 512, 512, 3, 1, 1, false, false}, {21, 512, 512, 3, 1, 1, false, true},
    {24, 512, 512, 3, 1, 1, true, false},  {26, 512, 512, 3, 1, 1, false, false},
    {28, 512, 512, 3, 1, 1, false, true}};

std::span<const Layer> layers_of(LpipsBackbone kind) {
  return kind == LpipsBackbone::alexnet ? std::span<const Layer>(kAlexNet)
                                        : std::span<const Layer>(kVgg16);
}

/// From [-1, 1] to what the backbones were trained on.
at::Tensor scaled(const at::Tensor& pixels) {
  const auto channels = [&](double red, double green, double blue) {
    return at::tensor({red, green, blue}, at::kFloat).to(pixels.device()).view({1, 3, 1, 1});
  };
  return (pixels - channels(-0.030, -0.088, -0.188)) / channels(0.458, 0.448, 0.450);
}

}  // namespace

Lpips::Lpips(const nn::WeightSource& backbone, const nn::WeightSource& linear, LpipsBackbone kind)
    : kind_(kind) {
  for (const Layer& layer : layers_of(kind)) {
    steps_.push_back({nn::Conv2d(backbone.at("features").at(layer.number), layer.in, layer.out,
                                 layer.kernel, {.stride = layer.stride, .padding = layer.padding}),
                      layer.pooled, layer.seen});
    if (!layer.seen) continue;
    const auto number = static_cast<std::int64_t>(weights_.size());
    weights_.push_back(linear.at("lin" + std::to_string(number))
                           .at("model.1")
                           .get("weight", {1, layer.out, 1, 1}));
  }
}

std::vector<at::Tensor> Lpips::unit_features(const at::Tensor& pixels) const {
  constexpr double kLengthEpsilon = 1e-10;
  const std::int64_t window = kind_ == LpipsBackbone::alexnet ? 3 : 2;
  std::vector<at::Tensor> features;
  at::Tensor x = scaled(pixels);
  for (const Step& step : steps_) {
    if (step.pooled) x = at::max_pool2d(x, {window, window}, {2, 2});
    x = at::relu(step.conv(x));
    if (step.seen)
      features.push_back(x / (x.pow(2).sum(1, /*keepdim=*/true).sqrt() + kLengthEpsilon));
  }
  return features;
}

at::Tensor Lpips::distance(const at::Tensor& a, const at::Tensor& b) const {
  const auto first = unit_features(a), second = unit_features(b);
  at::Tensor sum;
  for (std::size_t i = 0; i < first.size(); ++i) {
    const at::Tensor weighted = at::conv2d((first[i] - second[i]).pow(2), weights_[i]);
    const at::Tensor mean = weighted.mean({1, 2, 3});
    sum = sum.defined() ? sum + mean : mean;
  }
  return sum;
}

}  // namespace ringlet::models
