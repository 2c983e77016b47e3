#include "ringlet/diffusion/kept_picture.h"

#include <utility>

#include <ATen/ops/where.h>

#include "ringlet/diffusion/prediction.h"

namespace ringlet::diffusion {

at::Tensor with_kept(const KeptPicture& picture, const at::Tensor& x, const NoiseLevel& level) {
  return at::where(picture.made.gt(0.0), x, add_noise(picture.latents, picture.noise, level));
}

Denoiser keeping(Denoiser denoise, KeptPicture picture,
                 std::shared_ptr<const NoiseProcess> process) {
  return [denoise = std::move(denoise), picture = std::move(picture), process = std::move(process)](
             const at::Tensor& x, const NoiseLevel& level) {
    const double scale = process->input_scale(level);
    if (scale == 1.0) return denoise(with_kept(picture, x, level), level);
    return denoise(scale * with_kept(picture, x / scale, level), level);
  };
}

}  // namespace ringlet::diffusion
