// Samplers: pure functions from noise to clean latents. State lives in locals; randomness comes in
// through a NoiseSource; every sampler sees the network as a Denoiser.
#pragma once

#include <cstddef>
#include <functional>

#include <ATen/core/Tensor.h>

#include "ringlet/diffusion/denoiser.h"
#include "ringlet/diffusion/noise.h"
#include "ringlet/diffusion/sampling_steps.h"

namespace ringlet::diffusion {

/// What a step made; for progress bars and previews.
struct SamplerStep {
  std::size_t step;   ///< steps done, 1-based, counted from the path's first
  std::size_t count;  ///< steps of the path
  const at::Tensor& latents;
};

/// Called after every step. Returning false stops the sampler with Error(cancelled).
using StepCallback = std::function<bool(const SamplerStep&)>;

/// x [B, C, h, w] at path.steps[path.start].from -> clean latents. `noise` gives fresh noise by
/// draw number and is not called by deterministic samplers; an empty callback is allowed.
using Sampler = at::Tensor (*)(const Denoiser& denoise, at::Tensor x, const SamplingSteps& path,
                               const NoiseSource& noise, const StepCallback& callback);

// clang-format off
at::Tensor sample_ddpm(const Denoiser&, at::Tensor x, const SamplingSteps&, const NoiseSource&, const StepCallback&);
at::Tensor sample_ddim(const Denoiser&, at::Tensor x, const SamplingSteps&, const NoiseSource&, const StepCallback&);
at::Tensor sample_pndm(const Denoiser&, at::Tensor x, const SamplingSteps&, const NoiseSource&, const StepCallback&);
at::Tensor sample_euler(const Denoiser&, at::Tensor x, const SamplingSteps&, const NoiseSource&, const StepCallback&);
at::Tensor sample_euler_ancestral(const Denoiser&, at::Tensor x, const SamplingSteps&, const NoiseSource&, const StepCallback&);
at::Tensor sample_heun(const Denoiser&, at::Tensor x, const SamplingSteps&, const NoiseSource&, const StepCallback&);
at::Tensor sample_dpmpp_2m(const Denoiser&, at::Tensor x, const SamplingSteps&, const NoiseSource&, const StepCallback&);
at::Tensor sample_dpmpp_2m_sde(const Denoiser&, at::Tensor x, const SamplingSteps&, const NoiseSource&, const StepCallback&);
at::Tensor sample_dpmpp_sde(const Denoiser&, at::Tensor x, const SamplingSteps&, const NoiseSource&, const StepCallback&);
at::Tensor sample_unipc(const Denoiser&, at::Tensor x, const SamplingSteps&, const NoiseSource&, const StepCallback&);
at::Tensor sample_lcm(const Denoiser&, at::Tensor x, const SamplingSteps&, const NoiseSource&, const StepCallback&);
// clang-format on

}  // namespace ringlet::diffusion
