#include "ringlet/train/text_to_image/loss_mask.h"

#include <ATen/ops/adaptive_avg_pool2d.h>

#include "ringlet/core/error.h"
#include "ringlet/pipeline/image_tensor.h"

namespace ringlet::train {

at::Tensor loss_mask(const io::Image& mask, at::IntArrayRef latents, const MaskWeights& weights,
                     const std::string& where) {
  const at::Tensor red = pipeline::image_bytes(mask).narrow(1, 0, 1).to(at::kFloat) / 255.0;
  const at::Tensor areas = at::adaptive_avg_pool2d(red, {latents[1], latents[2]})[0];
  const at::Tensor held = areas.clamp_min(weights.outside);
  const double mean = held.mean().item<double>();
  if (mean == 0.0)
    throw Error(ErrorCode::invalid_argument, where, "the mask is black where the picture is cut",
                "leave the picture out, or give a weight of what lies outside: `mask_outside=0.1`");
  return weights.normalised ? held / mean : held;
}

}  // namespace ringlet::train
