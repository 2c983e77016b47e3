// Inpainting by any denoiser: what is kept of a picture is put back, noised, before every call
// (blended latent diffusion, Avrahami et al. 2023).
#pragma once

#include <memory>

#include <ATen/core/Tensor.h>

#include "ringlet/diffusion/denoiser.h"
#include "ringlet/diffusion/noise_process.h"

namespace ringlet::diffusion {

/// Latents of which a part is kept while the rest is made.
struct KeptPicture {
  at::Tensor latents;  ///< clean, [B, C, h, w]
  at::Tensor noise;    ///< that sampling starts from, [B, C, h, w]
  at::Tensor made;     ///< [B or 1, 1, h, w]: 1 where the picture is new, 0 where it is kept
};

/// x with the kept part at the level's noise.
at::Tensor with_kept(const KeptPicture& picture, const at::Tensor& x, const NoiseLevel& level);

/// A denoiser that sees the kept part in its place. Samplers compute every latent by itself, so
/// that the made part is what it would be if the kept part were put back after every step, as
/// diffusers' pipelines do it; the caller does so after the last one.
Denoiser keeping(Denoiser denoise, KeptPicture picture,
                 std::shared_ptr<const NoiseProcess> process);

}  // namespace ringlet::diffusion
