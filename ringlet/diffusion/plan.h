// Which noise levels a sampler visits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "ringlet/diffusion/schedule.h"

namespace ringlet::diffusion {

/// From one noise level to the next lower one.
struct SamplingStep {
  NoiseLevel from;
  NoiseLevel to;
};

struct SamplingPlan {
  Schedule schedule;
  std::vector<SamplingStep> steps;
  std::size_t start = 0;       ///< first step to do; later than 0 for image-to-image
  double initial_sigma = 1.0;  ///< deviation of pure noise at the first step
  double eta = 0.0;            ///< DDIM: 0 deterministic, 1 as random as DDPM
  Prediction prediction() const { return schedule.prediction(); }
};

/// How a sampler's timesteps are laid out. Each reproduces the grid of the diffusers class that
/// the sampler is known by, its rounding and defaults included.
enum class Grid {
  ddim,  ///< integer timesteps; the next level is `from` - training_steps / steps
  ddpm,  ///< integer timesteps; the next level is the next timestep's
  pndm,  ///< as ddim, with the warm-up correction as a second step
  k,     ///< real timesteps of k-diffusion, ending at zero noise
  dpm,   ///< integer timesteps of DPM-Solver: one interval more than steps, the last point left out
  lcm,   ///< a subset of the distillation grid
};

/// The spacing of a grid where neither the user nor the configuration names one: trailing under
/// zero terminal SNR, whose last level the others may leave out, else that of the diffusers class.
Spacing default_spacing(const ScheduleConfig& config, Grid grid);

/// Lays out `steps` steps. Karras sigmas (Karras et al. 2022, eq. 5, rho = 7) apply to the grids k
/// and dpm; `chosen` takes the place of the configuration's. Throws Error(invalid_argument) when
/// the schedule has fewer timesteps than asked for, or for a spacing of the grid lcm, which has its
/// own.
SamplingPlan make_plan(const Schedule& schedule, Grid grid, std::int64_t steps, bool karras,
                       std::optional<Spacing> chosen = std::nullopt);

/// Where image-to-image starts: at `strength` of the way down (diffusers' rule). strength in
/// (0, 1]; the initial picture is noised to plan.steps[start].from.
std::size_t start_for_strength(std::int64_t steps, double strength);

}  // namespace ringlet::diffusion
