// From a control picture to what is added to a denoiser's first features: the small convolutional
// encoder of ControlNet (Zhang et al. 2023, "Adding Conditional Control to Text-to-Image Diffusion
// Models", §3.2), which OFT (Qiu et al. 2023) trains alone beside its adapters. Member names are
// diffusers' ControlNetConditioningEmbedding's.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

class ControlEmbedding {
 public:
  /// Halves the picture's sides once per entry of `channels` but the first; `out` is the features'
  /// width. The published encoder has channels 16, 32, 96, 256.
  ControlEmbedding(const nn::WeightSource& source, const std::vector<std::int64_t>& channels,
                   std::int64_t out);

  /// pictures [B, 3, H, W] in [0, 1] -> [B, out, H / 2^n, W / 2^n].
  at::Tensor forward(const at::Tensor& pictures) const;

 private:
  nn::Conv2d conv_in_;
  std::vector<nn::Conv2d> blocks_;
  nn::Conv2d conv_out_;
};

}  // namespace ringlet::models
