#include "ringlet/diffusion/noise_process.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/diffusion/rectified_flow.h"
#include "ringlet/diffusion/schedule.h"

namespace ringlet::diffusion {

NoiseLevel NoiseProcess::level_at_ratio(double ratio) const {
  const NoiseLevel least = level_at(0.0), most = level_at(1.0);
  if (ratio >= most.ratio()) return most;
  if (ratio <= least.ratio()) return least;
  constexpr int kBits = 60;  // more than a double between 0.001 and 1 has
  double low = 0.0, high = 1.0;
  for (int bit = 0; bit < kBits; ++bit) {
    const double middle = 0.5 * (low + high);
    (level_at(middle).ratio() < ratio ? low : high) = middle;
  }
  return level_at(0.5 * (low + high));
}

NoiseLevel NoiseProcess::draw_level(RandomStream& random, PictureSize) const {
  return level_at(random.uniform());
}

std::shared_ptr<const NoiseProcess> NoiseProcess::with_times(const TrainingTimes&) const {
  throw Error(ErrorCode::invalid_argument, Field("time_density"),
              "training times are chosen for DDPM and rectified flow, and this model is of " +
                  std::string(name()),
              "leave `time_density` and its siblings out");
}

double NoiseProcess::loss_weight(const NoiseLevel& level, double min_snr_gamma) const {
  return min_snr_gamma > 0.0 ? min_snr_weight(prediction(), level, min_snr_gamma) : 1.0;
}

StepLayout NoiseProcess::lay_out(const StepRequest& request) const {
  check_step_count(request.steps);
  if (request.spacing == Spacing::leading)
    throw Error(ErrorCode::invalid_argument, Field("spacing"),
                "spacing \"leading\" skips the highest noise levels, where sampling begins",
                "use trailing");
  std::vector<NoiseLevel> levels;
  const auto count = static_cast<double>(request.steps);
  for (std::int64_t i = 0; i < request.steps; ++i)
    levels.push_back(level_at(1.0 - static_cast<double>(i) / count));
  if (request.karras) {
    const double highest = levels.front().ratio(), lowest = levels.back().ratio();
    if (std::isinf(highest))
      throw Error(ErrorCode::unsupported, Field("sampler"),
                  "Karras sigmas need a highest noise level, but this model begins in pure noise",
                  "choose the sampler without -karras");
    levels.clear();
    for (const double ratio : karras_spaced(highest, lowest, request.steps))
      levels.push_back(level_at_ratio(ratio));
  }
  StepLayout layout{chain(levels, {1.0, 0.0, 0.0})};
  layout.initial_sigma = layout.steps.front().from.sigma;
  return layout;
}

std::int64_t NoiseProcess::steps_for_strength(std::int64_t steps, double strength) const {
  return static_cast<std::int64_t>(static_cast<double>(steps) * strength);
}

double NoiseProcess::ancestral_share(const NoiseLevel& from, const NoiseLevel& to) const {
  return ratio_quotient(from, to);
}

Json NoiseProcess::description(Grid) const { return {{"process", name()}}; }

at::Tensor raw_output(const NoiseProcess& process, const Denoiser& denoise, const at::Tensor& x,
                      const NoiseLevel& level) {
  const double scale = process.input_scale(level);
  return denoise(scale == 1.0 ? x : scale * x, level);
}

std::shared_ptr<const NoiseProcess> open_noise_process(const Json& json, const std::string& where) {
  if (RectifiedFlowConfig::describes(json, where))
    return std::make_shared<RectifiedFlow>(RectifiedFlowConfig::from_json(json, where));
  return std::make_shared<Schedule>(ScheduleConfig::from_json(json, where));
}

}  // namespace ringlet::diffusion
