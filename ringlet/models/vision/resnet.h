// ResNet (He et al. 2016) with torchvision's and timm's tensor names; models/published_layout.h
// brings transformers' to them. Batch normalisation is frozen unless one
// asks for the batch's own statistics: it applies its running averages, also while the rest of the
// network learns.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/norm.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct ResNetConfig {
  bool bottleneck = false;                         ///< blocks of three convolutions (50, 101, 152)
  std::array<std::int64_t, 4> blocks{2, 2, 2, 2};  ///< per stage
  std::int64_t width = 64;                         ///< of the first stage
  bool stride_first = false;    ///< bottlenecks halve the size in their first convolution (2015)
  bool small_pictures = false;  ///< begins with a 3x3 convolution at full size, without pooling
  std::int64_t image_size = 224;

  /// Reads {"model_type": "resnet", "architecture": "resnet18" … "resnet152"}, or "blocks",
  /// "bottleneck" and "width" in its place, or transformers' configuration. Throws Error(bad_format
  /// | unsupported).
  static ResNetConfig from_json(const Json& json, const std::string& where);

  /// The architecture of a checkpoint without config.json, as torchvision's are, from the names and
  /// shapes of its tensors. Throws Error(unsupported) for anything but a ResNet of plain or
  /// bottleneck blocks (among them torchvision's wide ones and ResNeXt).
  static ResNetConfig deduce(const nn::TensorStore& store);

  std::int64_t features() const { return 8 * width * (bottleneck ? 4 : 1); }
};

class ResNet {
 public:
  using Statistics = nn::Statistics;

  ResNet(const nn::WeightSource& source, const ResNetConfig& config, std::int64_t classes);

  /// pixels [B, 3, H, W] -> scores [B, classes]. Statistics::batch, for learning from nothing, also
  /// moves the running averages (nn::BatchNorm).
  at::Tensor forward(const at::Tensor& pixels, Statistics statistics = Statistics::stored) const;

  /// The mean over the last map, which the classifier reads, [B, config().features()].
  at::Tensor features(const at::Tensor& pixels, Statistics statistics = Statistics::stored) const;

  const ResNetConfig& config() const { return config_; }

 private:
  struct Block {
    Block(const nn::WeightSource& source, const ResNetConfig& config, std::int64_t in,
          std::int64_t width, std::int64_t stride);
    at::Tensor forward(const at::Tensor& x, Statistics statistics) const;

    std::vector<nn::Conv2d> convolutions;
    std::vector<nn::BatchNorm> norms;
    std::optional<nn::Conv2d> shortcut;
    std::optional<nn::BatchNorm> shortcut_norm;
  };

  ResNetConfig config_;
  at::ScalarType dtype_;  ///< compute type
  nn::Conv2d first_;
  nn::BatchNorm first_norm_;
  std::vector<Block> blocks_;
  nn::Linear classifier_;
};

}  // namespace ringlet::models
