#include "ringlet/train/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ringlet::train {

const char* decay_name(Decay decay) {
  return std::ranges::find(kDecayNames, decay, [](const auto& row) { return row.second; })->first;
}

double LearningRate::at(std::int64_t step) const {
  if (step < warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  const double done = static_cast<double>(step - warmup) /
                      static_cast<double>(std::max<std::int64_t>(1, steps - warmup));
  const double progress = std::clamp(done, 0.0, 1.0);
  switch (decay) {
    case Decay::linear:
      return peak * (1.0 - progress);
    case Decay::cosine:
      return peak * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
    case Decay::constant:
      break;
  }
  return peak;
}

}  // namespace ringlet::train
