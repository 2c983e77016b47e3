#include "ringlet/diffusion/time_density.h"

#include <cmath>
#include <numbers>
#include <string>

#include "ringlet/core/error.h"

namespace ringlet::diffusion {

double logit_normal_time(double normal, double mean, double deviation) {
  return 1.0 / (1.0 + std::exp(-(mean + deviation * normal)));
}

double mode_time(double u, double scale) {
  const double cosine = std::cos(std::numbers::pi / 2.0 * u);
  return 1.0 - u - scale * (cosine * cosine - 1.0 + u);
}

double cosmap_time(double u) { return 1.0 - 1.0 / (std::tan(std::numbers::pi / 2.0 * u) + 1.0); }

namespace {

double time_of(RandomStream& random, const TimeDensity& density) {
  switch (density.distribution) {
    case TimeDistribution::logit_normal:
      return logit_normal_time(random.normal(), density.mean, density.deviation);
    case TimeDistribution::mode:
      return mode_time(random.uniform(), density.mode_scale);
    case TimeDistribution::cosmap:
      return cosmap_time(random.uniform());
    case TimeDistribution::uniform:
      break;
  }
  return random.uniform();
}

}  // namespace

double draw_time(RandomStream& random, const TimeDensity& density) {
  const double time = time_of(random, density);
  if (density.least == 0.0 && density.most == 1.0) return time;
  return density.least + (density.most - density.least) * time;
}

TimeDensity with_choices(TimeDensity density, const TrainingTimes& times) {
  density.distribution = times.distribution.value_or(density.distribution);
  const auto refuse_beside = [&](TimeDistribution needed, const Field& option, const char* name) {
    if (density.distribution != needed)
      throw Error(ErrorCode::invalid_argument, option,
                  "it belongs to another density than the chosen one",
                  std::string("leave it out, or give `time_density=") + name + "`");
  };
  if (times.mean) refuse_beside(TimeDistribution::logit_normal, Field("time_mean"), "logit-normal");
  if (times.deviation)
    refuse_beside(TimeDistribution::logit_normal, Field("time_deviation"), "logit-normal");
  if (times.mode_scale) refuse_beside(TimeDistribution::mode, Field("mode_scale"), "mode");
  density.mean = times.mean.value_or(density.mean);
  density.deviation = times.deviation.value_or(density.deviation);
  density.mode_scale = times.mode_scale.value_or(density.mode_scale);
  if (!(times.least < times.most))
    throw Error(ErrorCode::invalid_argument, Field("min_time"), "it must be below `max_time`");
  density.least = times.least;
  density.most = times.most;
  return density;
}

double sigma_weight(SigmaWeighting weighting, double sigma) {
  switch (weighting) {
    case SigmaWeighting::sigma_sqrt:
      return 1.0 / (sigma * sigma);
    case SigmaWeighting::cosmap:
      return 2.0 / (std::numbers::pi * (1.0 - 2.0 * sigma + 2.0 * sigma * sigma));
    case SigmaWeighting::none:
      break;
  }
  return 1.0;
}

}  // namespace ringlet::diffusion
