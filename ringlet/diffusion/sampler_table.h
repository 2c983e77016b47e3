// Samplers by name: ringlet's own, diffusers' class names and the labels of SD web UIs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ringlet/diffusion/plan.h"
#include "ringlet/diffusion/samplers.h"

namespace ringlet::diffusion {

struct SamplerEntry {
  std::string name;             ///< "dpmpp-2m"
  std::string label;            ///< "DPM++ 2M", as SD web UIs write it
  std::string diffusers_class;  ///< "DPMSolverMultistepScheduler"
  Grid grid;
  Sampler sample;
};

const std::vector<SamplerEntry>& sampler_table();

/// A sampler, whether it runs on Karras sigmas, and which timesteps it visits.
struct SamplerChoice {
  const SamplerEntry* entry = nullptr;
  bool karras = false;
  std::optional<Spacing> spacing = std::nullopt;  ///< none = the model's own

  std::string name() const;   ///< "dpmpp-2m-karras"
  std::string label() const;  ///< "DPM++ 2M Karras"
  SamplingPlan plan(const Schedule& schedule, std::int64_t steps) const {
    return make_plan(schedule, entry->grid, steps, karras, spacing);
  }
};

/// Finds a sampler by any of its spellings ("dpmpp-2m-karras", "DPM++ 2M Karras", "k_euler_a",
/// "UniPCMultistepScheduler"). Throws Error(invalid_argument) with the nearest name.
SamplerChoice find_sampler(std::string_view name);

/// The sampler that the model's scheduler_config.json names; Euler, with a warning, when ringlet
/// has no such sampler.
SamplerChoice default_sampler(const ScheduleConfig& config);

}  // namespace ringlet::diffusion
