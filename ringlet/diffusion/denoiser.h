// What a sampler sees of a network.
#pragma once

#include <functional>

#include <ATen/core/Tensor.h>

namespace ringlet::diffusion {

/// A point of a forward process: x = alpha * x0 + sigma * epsilon. alpha = 0 is pure noise and
/// sigma = 0 clean latents; nothing else ties the two (variance preserving: alpha^2 + sigma^2 = 1,
/// rectified flow: alpha + sigma = 1, variance exploding: alpha = 1).
struct NoiseLevel {
  double alpha = 1.0;
  double sigma = 0.0;
  double timestep = 0.0;  ///< what the network is conditioned on

  /// Noise-to-signal ratio, the "sigma" of Karras et al. 2022 and of k-diffusion; infinite for pure
  /// noise.
  double ratio() const { return sigma / alpha; }

  /// log(alpha / sigma), the lambda of DPM-Solver (half the logarithm of the signal-to-noise
  /// ratio): minus infinity for pure noise, infinity for clean latents.
  double log_snr() const;
};

/// ratio(to) / ratio(from) = e^-h, where h is the step in lambda: 0 from pure noise and to clean
/// latents. `to` must have signal and `from` noise.
double ratio_quotient(const NoiseLevel& from, const NoiseLevel& to);

/// The network's prediction (NoiseProcess::prediction) for latents x [B, C, h, w], which are
/// in the scale of alpha * x0 + sigma * epsilon times NoiseProcess::input_scale. Guidance and
/// control wrap one Denoiser in another.
using Denoiser = std::function<at::Tensor(const at::Tensor& x, const NoiseLevel& level)>;

}  // namespace ringlet::diffusion
