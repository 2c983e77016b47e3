#include "ringlet/diffusion/multiresolution_noise.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/upsample_bilinear2d.h>

namespace ringlet::diffusion {

std::vector<LayerSize> layer_sizes(LayerSize latents, std::int64_t iterations,
                                   RandomStream& ratios) {
  std::vector<LayerSize> sizes;
  const auto shrunk = [](std::int64_t side, double by) {
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(side) / by));
  };
  for (std::int64_t i = 0; i < iterations; ++i) {
    const double by = std::pow(2.0 + 2.0 * ratios.uniform(), static_cast<double>(i));
    sizes.push_back({shrunk(latents.height, by), shrunk(latents.width, by)});
    if (sizes.back().height == 1 || sizes.back().width == 1) break;
  }
  return sizes;
}

at::Tensor multiresolution_noise(const at::Tensor& noise, std::span<const at::Tensor> layers,
                                 double discount) {
  at::Tensor sum = noise.unsqueeze(0);
  double share = 1.0;
  for (const at::Tensor& layer : layers) {
    sum =
        sum + share * at::upsample_bilinear2d(layer.unsqueeze(0), {noise.size(-2), noise.size(-1)},
                                              /*align_corners=*/false);
    share *= discount;
  }
  sum = sum.squeeze(0);
  return sum / sum.std();
}

}  // namespace ringlet::diffusion
