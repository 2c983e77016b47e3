#include "ringlet/models/vision/resnet.h"

#include <algorithm>
#include <map>

#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>

#include "ringlet/core/error.h"
#include "ringlet/models/published_layout.h"

namespace ringlet::models {
namespace {

constexpr std::int64_t kExpansion = 4;  // of a bottleneck's last convolution

struct Architecture {
  bool bottleneck;
  std::array<std::int64_t, 4> blocks;
};

const std::map<std::string, Architecture>& architectures() {
  static const std::map<std::string, Architecture> table = {{"resnet18", {false, {2, 2, 2, 2}}},
                                                            {"resnet34", {false, {3, 4, 6, 3}}},
                                                            {"resnet50", {true, {3, 4, 6, 3}}},
                                                            {"resnet101", {true, {3, 4, 23, 3}}},
                                                            {"resnet152", {true, {3, 8, 36, 3}}}};
  return table;
}

nn::Conv2d convolution(const nn::WeightSource& source, std::int64_t in, std::int64_t out,
                       std::int64_t kernel, std::int64_t stride) {
  return {source, in, out, kernel, {.stride = stride, .padding = kernel / 2}, /*bias=*/false};
}

/// transformers' ResNetConfig.
ResNetConfig of_transformers(const Json& json, const std::string& where) {
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorCode::unsupported, where, what,
                "ringlet reads ResNets of four stages, each twice as wide as the one before");
  };
  ResNetConfig c;
  const auto kind = json_value<std::string>(json, "layer_type", "bottleneck", where);
  if (kind != "basic" && kind != "bottleneck") refuse("layer_type \"" + kind + "\" is not known");
  c.bottleneck = kind == "bottleneck";
  const auto widths = json_require<std::vector<std::int64_t>>(json, "hidden_sizes", where);
  const auto depths = json_value(json, "depths", std::vector<std::int64_t>{3, 4, 6, 3}, where);
  if (widths.size() != c.blocks.size() || depths.size() != c.blocks.size() ||
      std::ranges::min(depths) < 1)
    refuse("hidden_sizes and depths are not of four stages");
  std::ranges::copy(depths, c.blocks.begin());
  c.width = json_value<std::int64_t>(json, "embedding_size", 64, where);
  for (std::size_t stage = 0; stage < widths.size(); ++stage)
    if (c.width < 1 || widths[stage] != (c.width << stage) * (c.bottleneck ? kExpansion : 1))
      refuse("hidden_sizes do not follow from embedding_size");
  if (json_value<std::string>(json, "hidden_act", "relu", where) != "relu" ||
      json_value(json, "downsample_in_first_stage", false, where))
    refuse("another activation than ReLU, or a first stage that halves the size");
  c.stride_first = json_value(json, "downsample_in_bottleneck", false, where);
  return c;
}

}  // namespace

ResNetConfig ResNetConfig::from_json(const Json& json, const std::string& where) {
  const std::string type = required_network_type(json, where);
  if (type != "resnet")
    throw Error(ErrorCode::unsupported, where, "is not a ResNet, but of the kind " + type,
                "ringlet reads torchvision's, timm's and transformers' ResNets");
  if (json.contains("hidden_sizes")) return of_transformers(json, where);
  ResNetConfig c;
  const auto name = json_value<std::string>(json, "architecture", "", where);
  if (!name.empty()) {
    const auto known = architectures().find(name);
    if (known == architectures().end())
      throw Error(ErrorCode::unsupported, where, "architecture \"" + name + "\" is not known",
                  "use resnet18, resnet34, resnet50, resnet101 or resnet152");
    c.bottleneck = known->second.bottleneck;
    c.blocks = known->second.blocks;
  }
  const auto blocks = json_value(
      json, "blocks", std::vector<std::int64_t>(c.blocks.begin(), c.blocks.end()), where);
  if (blocks.size() != c.blocks.size() || std::ranges::min(blocks) < 1)
    throw Error(ErrorCode::bad_format, where, "\"blocks\" must be four positive numbers");
  std::ranges::copy(blocks, c.blocks.begin());
  c.bottleneck = json_value(json, "bottleneck", c.bottleneck, where);
  c.width = json_value(json, "width", c.width, where);
  c.small_pictures = json_value(json, "small_pictures", false, where);
  c.image_size = json_value<std::int64_t>(json, "image_size", c.small_pictures ? 32 : 224, where);
  if (c.width < 1 || c.image_size < 1)
    throw Error(ErrorCode::bad_format, where, "width and image_size must be positive");
  return c;
}

ResNetConfig ResNetConfig::deduce(const nn::TensorStore& store) {
  const auto refuse = [&](const std::string& what) {
    throw Error(
        ErrorCode::unsupported, store.description(), what,
        "ringlet reads resnet18, 34, 50, 101 and 152 of torchvision, timm and transformers; "
        "for other networks, a config.json with \"model_type\" is needed");
  };
  std::map<std::string, nn::Shape> shapes;
  for (const std::string& name : store.names())
    if (const auto tensor = store.find(name, {}, {})) shapes[name] = tensor->sizes().vec();
  const auto first = shapes.find("conv1.weight");
  if (first == shapes.end() || first->second.size() != 4)
    refuse("holds no ResNet with torchvision's names");
  ResNetConfig c;
  c.width = first->second[0];
  c.small_pictures = first->second[3] == 3;
  c.image_size = c.small_pictures ? 32 : c.image_size;
  c.bottleneck = shapes.contains("layer1.0.conv3.weight");
  for (std::size_t stage = 0; stage < c.blocks.size(); ++stage) {
    const std::string name = "layer" + std::to_string(stage + 1) + ".";
    std::int64_t& count = c.blocks[stage];
    for (count = 0; shapes.contains(name + std::to_string(count) + ".conv1.weight");) ++count;
    if (count == 0) refuse("holds no ResNet of four stages with torchvision's names");
    const nn::Shape middle = {c.width << stage, c.width << stage, 3, 3};
    if (c.bottleneck && shapes[name + "0.conv2.weight"] != middle)
      refuse("holds a ResNet with wide or grouped convolutions");
  }
  return c;
}

ResNet::Block::Block(const nn::WeightSource& s, const ResNetConfig& c, std::int64_t in,
                     std::int64_t width, std::int64_t stride) {
  const std::int64_t out = width * (c.bottleneck ? kExpansion : 1);
  const auto add = [&](std::int64_t from, std::int64_t to, std::int64_t kernel, std::int64_t step) {
    const std::string number = std::to_string(convolutions.size() + 1);
    convolutions.push_back(convolution(s.at("conv" + number), from, to, kernel, step));
    norms.emplace_back(s.at("bn" + number), to);
  };
  if (c.bottleneck) {
    add(in, width, 1, c.stride_first ? stride : 1);
    add(width, width, 3, c.stride_first ? 1 : stride);
    add(width, out, 1, 1);
  } else {
    add(in, width, 3, stride);
    add(width, width, 3, 1);
  }
  if (stride == 1 && in == out) return;
  shortcut.emplace(convolution(s.at("downsample").at(0), in, out, 1, stride));
  shortcut_norm.emplace(s.at("downsample").at(1), out);
}

at::Tensor ResNet::Block::forward(const at::Tensor& x, Statistics statistics) const {
  at::Tensor y = x;
  for (std::size_t i = 0; i < convolutions.size(); ++i) {
    y = norms[i](convolutions[i](y), statistics);
    if (i + 1 < convolutions.size()) y = at::relu(y);
  }
  return at::relu(y + (shortcut ? (*shortcut_norm)((*shortcut)(x), statistics) : x));
}

ResNet::ResNet(const nn::WeightSource& s, const ResNetConfig& c, std::int64_t classes)
    : config_(c),
      dtype_(s.options().dtype),
      first_(convolution(s.at("conv1"), 3, c.width, c.small_pictures ? 3 : 7,
                         c.small_pictures ? 1 : 2)),
      first_norm_(s.at("bn1"), c.width),
      classifier_(s.at("fc"), c.features(), classes) {
  std::int64_t in = c.width;
  for (std::size_t stage = 0; stage < c.blocks.size(); ++stage) {
    const nn::WeightSource blocks = s.at("layer" + std::to_string(stage + 1));
    const std::int64_t width = c.width << stage;
    for (std::int64_t i = 0; i < c.blocks[stage]; ++i) {
      blocks_.emplace_back(blocks.at(i), c, in, width, i == 0 && stage > 0 ? 2 : 1);
      in = width * (c.bottleneck ? kExpansion : 1);
    }
  }
}

at::Tensor ResNet::features(const at::Tensor& pixels, Statistics statistics) const {
  at::Tensor x = at::relu(first_norm_(first_(pixels.to(dtype_)), statistics));
  if (!config_.small_pictures) x = at::max_pool2d(x, 3, 2, 1);
  for (const Block& block : blocks_) x = block.forward(x, statistics);
  return x.mean({2, 3});
}

at::Tensor ResNet::forward(const at::Tensor& pixels, Statistics statistics) const {
  return classifier_(features(pixels, statistics));
}

}  // namespace ringlet::models
