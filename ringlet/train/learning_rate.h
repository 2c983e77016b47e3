// Learning-rate schedules as a function of the step.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

namespace ringlet::train {

enum class Decay { constant, linear, cosine };

inline constexpr std::array<std::pair<const char*, Decay>, 3> kDecayNames = {
    {{"constant", Decay::constant}, {"linear", Decay::linear}, {"cosine", Decay::cosine}}};

const char* decay_name(Decay decay);  ///< "constant", …

/// The curves of diffusers' get_scheduler: a linear rise from 0 over `warmup` steps, then constant,
/// or down to 0 at `steps` along a line or half a cosine.
struct LearningRate {
  double peak = 1e-4;
  Decay decay = Decay::constant;
  std::int64_t warmup = 0;
  std::int64_t steps = 1;

  /// The rate of step number `step`, counted from 0.
  double at(std::int64_t step) const;
};

}  // namespace ringlet::train
