// Classifier-free guidance as a wrapper around a denoiser.
#pragma once

#include "ringlet/diffusion/denoiser.h"

namespace ringlet::diffusion {

struct Guidance {
  double scale = 7.5;    ///< 1 = the prompt alone
  double rescale = 0.0;  ///< share of the result brought back to the prompt's deviation
};

/// unconditional + scale * (conditional - unconditional), all [B, C, h, w] (Ho and Salimans 2022),
/// with the rescaling of Lin et al. 2024, §3.4.
at::Tensor guide(const at::Tensor& unconditional, const at::Tensor& conditional,
                 const Guidance& guidance);

/// A denoiser of B latents from one of 2B whose first half sees the negative prompt and whose
/// second half sees the prompt: both are evaluated in one batch.
Denoiser classifier_free_guidance(Denoiser both, Guidance guidance);

}  // namespace ringlet::diffusion
