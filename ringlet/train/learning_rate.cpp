#include "ringlet/train/learning_rate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::train {

namespace {

constexpr std::array kDecays = {Decay::constant, Decay::linear, Decay::cosine};

}  // namespace

const char* decay_name(Decay decay) {
  switch (decay) {
    case Decay::constant:
      return "constant";
    case Decay::linear:
      return "linear";
    case Decay::cosine:
      return "cosine";
  }
  throw Error(ErrorCode::internal, "decay", "unknown kind");
}

Decay decay_from_name(const std::string& name) {
  std::vector<std::string> known;
  for (const Decay decay : kDecays) {
    known.emplace_back(decay_name(decay));
    if (name == known.back()) return decay;
  }
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
