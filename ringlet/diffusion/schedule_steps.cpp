// How the samplers of diffusers lay out the timesteps of DDPM's process.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/diffusion/sampling_steps.h"
#include "ringlet/diffusion/schedule.h"

namespace ringlet::diffusion {
namespace {

constexpr NoiseLevel kClean{1.0, 0.0, 0.0};

/// Half to even, as numpy rounds.
double rounded(double value) { return std::nearbyint(value); }

/// `count` timesteps, highest first. `intervals` is count, or count + 1 where the grid leaves its
/// lowest point out.
std::vector<double> spaced_timesteps(const ScheduleConfig& c, Spacing spacing, std::int64_t count,
                                     std::int64_t intervals, bool integers) {
  const auto training = static_cast<double>(c.training_steps);
  std::vector<double> timesteps;
  for (std::int64_t i = 0; i < count; ++i) {
    double t = 0.0;
    if (spacing == Spacing::linspace) {
      const auto from_bottom = static_cast<double>(intervals - 1 - i);
      const double step =
          intervals > 1 ? (training - 1.0) / static_cast<double>(intervals - 1) : 0.0;
      t = i == 0 && intervals > 1 ? training - 1.0 : from_bottom * step;
      if (integers) t = rounded(t);
    } else if (spacing == Spacing::leading) {
      const std::int64_t ratio = c.training_steps / intervals;
      t = static_cast<double>((intervals - 1 - i) * ratio + c.steps_offset);
    } else {
      t = rounded(training - static_cast<double>(i) * (training / static_cast<double>(count))) -
          1.0;
    }
    timesteps.push_back(std::clamp(t, 0.0, training - 1.0));
  }
  return timesteps;
}

NoiseLevel integer_level(const Schedule& schedule, double timestep) {
  return schedule.level(static_cast<std::int64_t>(timestep));
}

/// The level after the last step of DDIM and PNDM.
NoiseLevel level_or_final(const Schedule& schedule, double timestep) {
  if (timestep >= 0.0) return integer_level(schedule, timestep);
  return schedule.config().set_alpha_to_one ? kClean : schedule.level(0);
}

std::vector<SamplingStep> ddim_steps(const Schedule& schedule, const std::vector<double>& t) {
  const auto stride =
      static_cast<double>(schedule.training_steps() / static_cast<std::int64_t>(t.size()));
  std::vector<SamplingStep> steps;
  for (const double here : t)
    steps.push_back({integer_level(schedule, here), level_or_final(schedule, here - stride)});
  return steps;
}

/// The second step repeats the first with a better slope: it goes from timestep t1 + stride to t1
/// and asks the network at t1.
std::vector<SamplingStep> pndm_steps(const Schedule& schedule, const std::vector<double>& t) {
  std::vector<SamplingStep> steps = ddim_steps(schedule, t);
  if (t.size() < 2) return steps;
  const auto stride =
      static_cast<double>(schedule.training_steps() / static_cast<std::int64_t>(t.size()));
  const double above = std::min(t[1] + stride, static_cast<double>(schedule.training_steps() - 1));
  steps.insert(steps.begin() + 1, {integer_level(schedule, above), integer_level(schedule, t[1])});
  return steps;
}

/// Levels at Karras sigmas. The k grid spans the sigmas of its timesteps; the dpm grid spans all
/// training sigmas and tells the network whole timesteps.
std::vector<NoiseLevel> karras_levels(const Schedule& schedule, Grid grid,
                                      const std::vector<double>& timesteps) {
  const bool k = grid == Grid::k;
  const double highest =
      k ? schedule.level_at_timestep(timesteps.front()).ratio() : schedule.ratios().back();
  const double lowest =
      k ? schedule.level_at_timestep(timesteps.back()).ratio() : schedule.ratios().front();
  std::vector<NoiseLevel> levels;
  const auto count = static_cast<std::int64_t>(timesteps.size());
  for (const double ratio : karras_spaced(highest, lowest, count)) {
    NoiseLevel level = schedule.level_at_ratio(ratio);
    if (!k) level.timestep = rounded(level.timestep);
    levels.push_back(level);
  }
  return levels;
}

/// Every `skip`-th timestep of the grid that the model was distilled on, from the top.
std::vector<double> lcm_timesteps(const ScheduleConfig& c, std::int64_t count) {
  const std::int64_t original = c.original_inference_steps;
  if (count > original)
    throw Error(ErrorCode::invalid_argument, Field("steps"),
                std::to_string(count) + " steps, but the LCM grid has " + std::to_string(original),
                "LCM needs 1 to 8 steps");
  const std::int64_t stride = c.training_steps / original;
  std::vector<double> timesteps;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto index = static_cast<std::int64_t>(std::floor(
        static_cast<double>(i) * (static_cast<double>(original) / static_cast<double>(count))));
    timesteps.push_back(static_cast<double>((original - index) * stride - 1));
  }
  return timesteps;
}

void check_steps(const Schedule& schedule, std::int64_t steps, std::int64_t more_intervals) {
  check_step_count(steps);
  if (steps > schedule.training_steps() - more_intervals)
    throw Error(ErrorCode::invalid_argument, Field("steps"),
                std::to_string(steps) + " steps are too many: the model was trained with " +
                    std::to_string(schedule.training_steps()) + " noise levels",
                "20 to 50 steps are usual");
}

std::vector<NoiseLevel> integer_levels(const Schedule& schedule,
                                       const std::vector<double>& timesteps) {
  std::vector<NoiseLevel> levels;
  for (const double t : timesteps) levels.push_back(integer_level(schedule, t));
  return levels;
}

/// The levels of the grids k, dpm and unipc.
std::vector<NoiseLevel> real_levels(const Schedule& schedule, const StepRequest& request,
                                    const std::vector<double>& timesteps) {
  if (request.karras) return karras_levels(schedule, request.grid, timesteps);
  std::vector<NoiseLevel> levels;
  for (const double t : timesteps) levels.push_back(schedule.level_at_timestep(t));
  return levels;
}

}  // namespace

Spacing default_spacing(const ScheduleConfig& config, Grid grid) {
  if (config.zero_terminal_snr) return Spacing::trailing;
  return grid == Grid::k || is_multistep(grid) ? Spacing::linspace : Spacing::leading;
}

StepLayout Schedule::lay_out(const StepRequest& request) const {
  const Grid grid = request.grid;
  if (request.spacing && grid == Grid::lcm)
    throw Error(ErrorCode::invalid_argument, Field("spacing"),
                "the sampler lcm visits the steps that the model was distilled on",
                "leave it out, or choose another sampler");
  const Spacing spacing =
      request.spacing ? *request.spacing : config_.spacing.value_or(default_spacing(config_, grid));
  const bool one_more = is_multistep(grid) && spacing != Spacing::trailing;
  check_steps(*this, request.steps, one_more ? 1 : 0);
  if (grid == Grid::lcm)
    return {chain(integer_levels(*this, lcm_timesteps(config_, request.steps)), kClean)};

  const std::vector<double> timesteps =
      spaced_timesteps(config_, spacing, request.steps, request.steps + (one_more ? 1 : 0),
                       /*integers=*/grid != Grid::k);
  if (grid == Grid::ddim) return {ddim_steps(*this, timesteps)};
  if (grid == Grid::pndm) return {pndm_steps(*this, timesteps)};
  if (grid == Grid::ddpm) return {chain(integer_levels(*this, timesteps), kClean)};

  const NoiseLevel last = config_.final_sigma_is_min ? level_at_timestep(0.0) : kClean;
  StepLayout layout{chain(real_levels(*this, request, timesteps), last)};
  // k-diffusion starts from noise of deviation sigma; "leading" grids correct for the signal that
  // is left at their first level.
  if (grid == Grid::k && spacing != Spacing::leading)
    layout.initial_sigma = layout.steps.front().from.sigma;
  return layout;
}

}  // namespace ringlet::diffusion
