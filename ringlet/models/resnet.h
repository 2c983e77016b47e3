// ResNet (He et al. 2016) with torchvision's tensor names. Batch normalisation is frozen: it
// applies its running statistics, also while the rest of the network learns.
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
  bool small_pictures = false;  ///< begins with a 3x3 convolution at full size, without pooling
  std::int64_t image_size = 224;

  /// Reads {"model_type": "resnet", "architecture": "resnet18" … "resnet152"}, or "blocks",
  /// "bottleneck" and "width" in its place. Throws Error(bad_format | unsupported).
  static ResNetConfig from_json(const Json& json, const std::string& where);

  std::int64_t features() const { return 8 * width * (bottleneck ? 4 : 1); }
};

class ResNet {
 public:
  ResNet(const nn::WeightSource& source, const ResNetConfig& config, std::int64_t classes);

  /// pixels [B, 3, H, W] -> scores [B, classes].
  at::Tensor forward(const at::Tensor& pixels) const;

 private:
  struct Block {
    Block(const nn::WeightSource& source, const ResNetConfig& config, std::int64_t in,
          std::int64_t width, std::int64_t stride);
    at::Tensor forward(const at::Tensor& x) const;

    std::vector<nn::Conv2d> convolutions;
    std::vector<nn::FrozenBatchNorm> norms;
    std::optional<nn::Conv2d> shortcut;
    std::optional<nn::FrozenBatchNorm> shortcut_norm;
  };

  ResNetConfig config_;
  nn::Conv2d first_;
  nn::FrozenBatchNorm first_norm_;
  std::vector<Block> blocks_;
  nn::Linear classifier_;
};

}  // namespace ringlet::models
