// A denoiser's first layer for more input channels: the latents of a control picture, concatenated
// with the noisy ones, as FLUX.1 Canny and Depth and InstructPix2Pix (Brooks et al. 2023) have it.
// What the layer says of these channels is computed apart and added, which is the same.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

class ControlChannels {
 public:
  /// For a first layer with `kernel` x `kernel` latents per feature, one feature every `stride`
  /// latents.
  ControlChannels(const nn::WeightSource& source, std::int64_t latent_channels, std::int64_t out,
                  std::int64_t kernel, std::int64_t stride);

  /// latents [B, C, h, w] -> [B, out, h / stride, w / stride].
  at::Tensor forward(const at::Tensor& latents) const { return channels_(latents); }

 private:
  nn::Conv2d channels_;
};

}  // namespace ringlet::models
