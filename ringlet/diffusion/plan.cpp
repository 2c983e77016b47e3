#include "ringlet/diffusion/plan.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "ringlet/core/error.h"

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

/// Steps between consecutive levels, the last one to `final`.
std::vector<SamplingStep> chain(const std::vector<NoiseLevel>& levels, const NoiseLevel& final) {
  std::vector<SamplingStep> steps;
  for (std::size_t i = 0; i < levels.size(); ++i)
    steps.push_back({levels[i], i + 1 < levels.size() ? levels[i + 1] : final});
  return steps;
}

std::vector<double> karras_ratios(double highest, double lowest, std::int64_t count) {
  constexpr double kRho = 7.0;
  const double high = std::pow(highest, 1.0 / kRho);
  const double low = std::pow(lowest, 1.0 / kRho);
  std::vector<double> ratios;
  for (std::int64_t i = 0; i < count; ++i) {
    const double ramp = count > 1 ? static_cast<double>(i) / static_cast<double>(count - 1) : 0.0;
    ratios.push_back(std::pow(high + ramp * (low - high), kRho));
  }
  return ratios;
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
  for (const double ratio : karras_ratios(highest, lowest, count)) {
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
  if (steps < 1) throw Error(ErrorCode::invalid_argument, Field("steps"), "must be at least 1");
  if (steps > schedule.training_steps() - more_intervals)
    throw Error(ErrorCode::invalid_argument, Field("steps"),
                std::to_string(steps) + " steps are too many: the model was trained with " +
                    std::to_string(schedule.training_steps()) + " noise levels",
                "20 to 50 steps are usual");
}

}  // namespace

Spacing default_spacing(const ScheduleConfig& config, Grid grid) {
  if (config.zero_terminal_snr) return Spacing::trailing;
  return grid == Grid::k || grid == Grid::dpm ? Spacing::linspace : Spacing::leading;
}

SamplingPlan make_plan(const Schedule& schedule, Grid grid, std::int64_t steps, bool karras,
                       std::optional<Spacing> chosen) {
  const ScheduleConfig& c = schedule.config();
  if (chosen && grid == Grid::lcm)
    throw Error(ErrorCode::invalid_argument, Field("spacing"),
                "the sampler lcm visits the steps that the model was distilled on",
                "leave it out, or choose another sampler");
  const Spacing spacing = chosen ? *chosen : c.spacing.value_or(default_spacing(c, grid));
  const bool one_more = grid == Grid::dpm && spacing != Spacing::trailing;
  check_steps(schedule, steps, one_more ? 1 : 0);

  SamplingPlan plan{.schedule = schedule, .steps = {}};
  if (grid == Grid::lcm) {
    std::vector<NoiseLevel> levels;
    for (const double t : lcm_timesteps(c, steps)) levels.push_back(integer_level(schedule, t));
    plan.steps = chain(levels, kClean);
    return plan;
  }

  const std::vector<double> timesteps = spaced_timesteps(
      c, spacing, steps, one_more ? steps + 1 : steps, /*integers=*/grid != Grid::k);
  if (grid == Grid::ddim) plan.steps = ddim_steps(schedule, timesteps);
  if (grid == Grid::pndm) plan.steps = pndm_steps(schedule, timesteps);
  if (grid == Grid::ddpm) {
    std::vector<NoiseLevel> levels;
    for (const double t : timesteps) levels.push_back(integer_level(schedule, t));
    plan.steps = chain(levels, kClean);
  }
  if (grid == Grid::k || grid == Grid::dpm) {
    std::vector<NoiseLevel> levels;
    if (karras)
      levels = karras_levels(schedule, grid, timesteps);
    else
      for (const double t : timesteps) levels.push_back(schedule.level_at_timestep(t));
    const NoiseLevel last = c.final_sigma_is_min ? schedule.level_at_timestep(0.0) : kClean;
    plan.steps = chain(levels, last);
  }
  // k-diffusion starts from noise of deviation sigma; "leading" grids correct for the signal that
  // is left at their first level.
  if (grid == Grid::k && spacing != Spacing::leading)
    plan.initial_sigma = plan.steps.front().from.sigma;
  return plan;
}

std::size_t start_for_strength(std::int64_t steps, double strength) {
  if (!(strength > 0.0 && strength <= 1.0))
    throw Error(ErrorCode::invalid_argument, Field("strength"), "must lie above 0 and up to 1");
  const auto done =
      std::min(static_cast<std::int64_t>(static_cast<double>(steps) * strength), steps);
  if (done < 1)
    throw Error(ErrorCode::invalid_argument, Field("strength"),
                "so low a strength leaves no step of " + std::to_string(steps),
                "raise `strength` or `steps`");
  return static_cast<std::size_t>(steps - done);
}

}  // namespace ringlet::diffusion
