#include "ringlet/diffusion/sampling_steps.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/diffusion/noise_process.h"

namespace ringlet::diffusion {

Spacing spacing_from_name(const std::string& name, const std::string& where) {
  for (const auto& [known, spacing] : kSpacingNames)
    if (name == known) return spacing;
  throw Error(ErrorCode::unsupported, where, "timestep spacing \"" + name + "\" is not known",
              "use leading, trailing or linspace");
}

std::string_view spacing_name(Spacing spacing) {
  return std::ranges::find(kSpacingNames, spacing, [](const auto& row) { return row.second; })
      ->first;
}

SamplingSteps make_sampling_steps(std::shared_ptr<const NoiseProcess> process,
                                  const StepRequest& request) {
  SamplingSteps path{process->lay_out(request), nullptr};
  path.process = std::move(process);
  return path;
}

void check_step_count(std::int64_t steps) {
  if (steps < 1) throw Error(ErrorCode::invalid_argument, Field("steps"), "must be at least 1");
}

std::vector<SamplingStep> chain(const std::vector<NoiseLevel>& levels, const NoiseLevel& end) {
  std::vector<SamplingStep> steps;
  for (std::size_t i = 0; i < levels.size(); ++i)
    steps.push_back({levels[i], i + 1 < levels.size() ? levels[i + 1] : end});
  return steps;
}

std::vector<double> karras_spaced(double highest, double lowest, std::int64_t count) {
  constexpr double kRho = 7.0;
  const double high = std::pow(highest, 1.0 / kRho);
  const double low = std::pow(lowest, 1.0 / kRho);
  std::vector<double> values;
  for (std::int64_t i = 0; i < count; ++i) {
    const double ramp = count > 1 ? static_cast<double>(i) / static_cast<double>(count - 1) : 0.0;
    values.push_back(std::pow(high + ramp * (low - high), kRho));
  }
  return values;
}

std::size_t start_for_strength(const NoiseProcess& process, std::int64_t steps, double strength) {
  if (!(strength > 0.0 && strength <= 1.0))
    throw Error(ErrorCode::invalid_argument, Field("strength"), "must lie above 0 and up to 1");
  const std::int64_t done = std::min(process.steps_for_strength(steps, strength), steps);
  if (done < 1)
    throw Error(ErrorCode::invalid_argument, Field("strength"),
                "so low a strength leaves no step of " + std::to_string(steps),
                "raise `strength` or `steps`");
  return static_cast<std::size_t>(steps - done);
}

}  // namespace ringlet::diffusion
