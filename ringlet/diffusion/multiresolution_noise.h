// Noise of several resolutions (Whitaker 2023, "Multi-Resolution Noise for Diffusion Model
// Training"; kohya's pyramid noise).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/random.h"

namespace ringlet::diffusion {

struct MultiresolutionOptions {
  std::int64_t iterations = 0;  ///< 0 = off
  double discount = 0.3;
};

/// Height and width of a layer of noise.
struct LayerSize {
  std::int64_t height, width;
};

/// The layers' sizes for latents [.., h, w]: layer i is 1 / r^i as large, rounded down, with an r
/// in [2, 4) drawn for each. None comes behind one that is a single row or column.
std::vector<LayerSize> layer_sizes(LayerSize latents, std::int64_t iterations,
                                   RandomStream& ratios);

/// noise + sum_i discount^i * (layer i, enlarged bilinearly), divided by its standard deviation.
/// `noise` [C, h, w]; layers [C, h_i, w_i]. kohya's trainer divides by that of the whole batch:
/// here a row is a function of itself alone.
at::Tensor multiresolution_noise(const at::Tensor& noise, std::span<const at::Tensor> layers,
                                 double discount);

}  // namespace ringlet::diffusion
