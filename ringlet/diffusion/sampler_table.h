// Samplers by name: ringlet's own, diffusers' class names and the labels of SD web UIs.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ringlet/core/option.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/diffusion/noise_process.h"
#include "ringlet/diffusion/samplers.h"
#include "ringlet/diffusion/sampling_steps.h"

namespace ringlet::diffusion {

struct SamplerEntry {
  std::string name;             ///< "dpmpp-2m"
  std::string label;            ///< "DPM++ 2M", as SD web UIs write it
  std::string diffusers_class;  ///< "DPMSolverMultistepScheduler"
  Grid grid;
  Sampler sample;
  bool whole_timesteps = false;  ///< requires equal strides of integer training timesteps

  bool takes_karras() const { return grid == Grid::k || is_multistep(grid); }

  /// Whether it makes sense for the levels of `process`.
  bool runs_on(const NoiseProcess& process) const {
    return !whole_timesteps || process.has_whole_timesteps();
  }
};

const std::vector<SamplerEntry>& sampler_table();

/// A sampler, whether it runs on Karras sigmas, and which timesteps it visits.
struct SamplerChoice {
  const SamplerEntry* entry = nullptr;
  bool karras = false;
  std::optional<Spacing> spacing = std::nullopt;  ///< none = the model's own

  bool operator==(const SamplerChoice&) const = default;

  std::string name() const;   ///< "dpmpp-2m-karras"
  std::string label() const;  ///< "DPM++ 2M Karras"

  /// The levels that `steps` steps visit for pictures of `size` (needed only where the process
  /// depends on it). Throws Error(invalid_argument) for a number of steps or a spacing that cannot
  /// be, and Error(unsupported) for a sampler that makes no sense for the process.
  SamplingSteps steps(std::shared_ptr<const NoiseProcess> process, std::int64_t steps,
                      PictureSize size = {}) const;
};

/// Finds a sampler by any of its spellings ("dpmpp-2m-karras", "DPM++ 2M Karras", "k_euler_a",
/// "UniPCMultistepScheduler"). Throws Error(invalid_argument) with the nearest name.
SamplerChoice find_sampler(std::string_view name);

/// "sampler", in any spelling that find_sampler knows, and "spacing"; none = the model's own.
void describe(OptionList& list, SamplerChoice& choice);

/// The sampler that the process names for itself; Euler, with a warning, when ringlet has no such
/// sampler.
SamplerChoice default_sampler(const NoiseProcess& process);

}  // namespace ringlet::diffusion
