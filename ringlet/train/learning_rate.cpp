#include "ringlet/train/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ringlet::train {

const char* decay_name(Decay decay) {
  return std::ranges::find(kDecayNames, decay, [](const auto& row) { return row.second; })->first;
}

double decay_curve(Decay decay, double progress, double power) {
  const double left = 1.0 - progress;
  switch (decay) {
    case Decay::linear:
      return left;
    case Decay::cosine:
      return 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
    case Decay::polynomial:
      return std::pow(left, power);
    case Decay::rex:
      return left / (0.5 + 0.5 * left);
    case Decay::constant:
      break;
  }
  return 1.0;
}

std::int64_t LearningRate::warmup_steps() const {
  return warmup_share > 0.0 ? std::llround(warmup_share * static_cast<double>(steps)) : warmup;
}

double LearningRate::at(std::int64_t step) const {
  const std::int64_t rise = warmup_steps();
  if (step < rise) return peak * static_cast<double>(step) / static_cast<double>(rise);
  if (decay == Decay::constant) return peak;
  const double done = static_cast<double>(step - rise) /
                      static_cast<double>(std::max<std::int64_t>(1, steps - rise));
  // The last cycle ends at its end, not at the start of another one.
  const double progress =
      done >= 1.0 ? 1.0 : std::fmod(static_cast<double>(cycles) * std::max(done, 0.0), 1.0);
  const double curve = decay_curve(decay, progress, power);
  return end == 0.0 ? peak * curve : end + (peak - end) * curve;
}

}  // namespace ringlet::train
