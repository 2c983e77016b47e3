#include "ringlet/diffusion/time_density.h"

#include <cmath>
#include <numbers>

namespace ringlet::diffusion {

double logit_normal_time(double normal, double mean, double deviation) {
  return 1.0 / (1.0 + std::exp(-(mean + deviation * normal)));
}

double mode_time(double u, double scale) {
  const double cosine = std::cos(std::numbers::pi / 2.0 * u);
  return 1.0 - u - scale * (cosine * cosine - 1.0 + u);
}

double cosmap_time(double u) { return 1.0 - 1.0 / (std::tan(std::numbers::pi / 2.0 * u) + 1.0); }

double draw_time(RandomStream& random, const TimeDensity& density) {
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
