// Which noise levels a sampler visits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ringlet/core/picture_size.h"
#include "ringlet/diffusion/denoiser.h"

namespace ringlet::diffusion {

class NoiseProcess;

/// Which training timesteps a sampler visits (Lin et al. 2024, "Common Diffusion Noise Schedules
/// and Sample Steps are Flawed", table 2).
enum class Spacing { leading, trailing, linspace };

inline constexpr std::array<std::pair<const char*, Spacing>, 3> kSpacingNames = {
    {{"leading", Spacing::leading},
     {"trailing", Spacing::trailing},
     {"linspace", Spacing::linspace}}};

/// "leading", "trailing" or "linspace", as in scheduler_config.json, and back. Throws
/// Error(unsupported) that names `where`.
Spacing spacing_from_name(const std::string& name, const std::string& where);
std::string_view spacing_name(Spacing spacing);

/// How a sampler's timesteps are laid out. Each reproduces the grid of the diffusers class that
/// the sampler is known by, its rounding and defaults included.
enum class Grid {
  ddim,  ///< integer timesteps; the next level is `from` - training_steps / steps
  ddpm,  ///< integer timesteps; the next level is the next timestep's
  pndm,  ///< as ddim, with the warm-up correction as a second step
  k,     ///< real timesteps of k-diffusion, ending at zero noise
  dpm,   ///< integer timesteps of DPM-Solver: one interval more than steps, the last point left out
  unipc,  ///< UniPC's, which are dpm's for DDPM and start higher for rectified flow
  lcm,    ///< a subset of the distillation grid
};

/// Whether the class of a grid takes one interval more than steps and leaves the last point out.
constexpr bool is_multistep(Grid grid) { return grid == Grid::dpm || grid == Grid::unipc; }

/// What the levels of a picture's sampling depend on beside the process.
struct StepRequest {
  Grid grid = Grid::k;
  std::int64_t steps = 0;
  bool karras = false;                            ///< Karras et al. 2022, eq. 5, rho = 7
  std::optional<Spacing> spacing = std::nullopt;  ///< none = the process's own
  PictureSize size;                               ///< for a process whose levels depend on it
};

/// From one noise level to the next lower one.
struct SamplingStep {
  NoiseLevel from;
  NoiseLevel to;
};

struct StepLayout {
  std::vector<SamplingStep> steps;
  double initial_sigma = 1.0;  ///< deviation of pure noise at the first step
};

/// What a sampler walks.
struct SamplingSteps : StepLayout {
  std::shared_ptr<const NoiseProcess> process;
  std::size_t start = 0;  ///< first step to do; later than 0 for image-to-image
  double eta = 0.0;       ///< DDIM: 0 deterministic, 1 as random as DDPM
};

/// process->lay_out(request), with the process beside it.
SamplingSteps make_sampling_steps(std::shared_ptr<const NoiseProcess> process,
                                  const StepRequest& request);

/// Throws Error(invalid_argument) for fewer than one step.
void check_step_count(std::int64_t steps);

/// Steps between consecutive levels, the last one to `end`.
std::vector<SamplingStep> chain(const std::vector<NoiseLevel>& levels, const NoiseLevel& end);

/// `count` values from `highest` to `lowest`, dense at the low end (Karras et al. 2022, eq. 5 with
/// rho = 7). Both ends positive and finite.
std::vector<double> karras_spaced(double highest, double lowest, std::int64_t count);

/// Where image-to-image starts: at `strength` of the way down, by the process's rule. strength in
/// (0, 1]; the initial picture is noised to steps[start].from. Throws Error(invalid_argument).
std::size_t start_for_strength(const NoiseProcess& process, std::int64_t steps, double strength);

}  // namespace ringlet::diffusion
