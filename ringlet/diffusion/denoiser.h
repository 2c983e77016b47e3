// What a sampler sees of a network.
#pragma once

#include <functional>

#include <ATen/core/Tensor.h>

namespace ringlet::diffusion {

/// A point of the forward process: x = alpha * x0 + sigma * epsilon with alpha^2 + sigma^2 = 1
/// (variance preserving; sigma = 1 is pure noise, also under zero terminal SNR).
struct NoiseLevel {
  double alpha = 1.0;
  double sigma = 0.0;
  double timestep = 0.0;  ///< what the network is conditioned on, in [0, training steps)

  /// Noise-to-signal ratio, the "sigma" of Karras et al. 2022 and of k-diffusion.
  double ratio() const { return sigma / alpha; }
};

/// The raw prediction (epsilon, v or x0, as the schedule says) for latents x [B, C, h, w] in the
/// variance-preserving scale. Guidance and control wrap one Denoiser in another.
using Denoiser = std::function<at::Tensor(const at::Tensor& x, const NoiseLevel& level)>;

}  // namespace ringlet::diffusion
