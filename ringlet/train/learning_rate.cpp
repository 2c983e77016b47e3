#include "ringlet/train/learning_rate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::train {

Decay decay_from_name(const std::string& name) {
  if (name == "constant") return Decay::constant;
  if (name == "linear") return Decay::linear;
  if (name == "cosine") return Decay::cosine;
  const std::array<std::string, 3> known = {"constant", "linear", "cosine"};
  const std::string near = nearest_name(name, known);
  throw Error(ErrorCode::invalid_argument, Field("learning_rate_schedule"),
              "\"" + name + "\" is not known",
              near.empty() ? "use constant, linear or cosine" : "did you mean \"" + near + "\"?");
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
