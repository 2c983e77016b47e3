// Learning-rate schedules as a function of the step.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

namespace ringlet::train {

enum class Decay { constant, linear, cosine, polynomial, rex };

inline constexpr std::array<std::pair<const char*, Decay>, 5> kDecayNames = {
    {{"constant", Decay::constant},
     {"linear", Decay::linear},
     {"cosine", Decay::cosine},
     {"polynomial", Decay::polynomial},
     {"rex", Decay::rex}}};

const char* decay_name(Decay decay);  ///< "constant", …

/// What is left of the way from the peak to the end when a share `progress` in [0, 1] of the steps
/// is done: 1 - p; half a cosine; (1 - p)^power; or REX, (1 - p) / (1/2 + (1 - p) / 2) (Chen,
/// Wolfe and Kyrillidis 2022, "REX: Revisiting Budgeted Training with an Improved Schedule").
double decay_curve(Decay decay, double progress, double power);

/// The curves of diffusers' get_scheduler: a linear rise from 0 over the warm-up, then constant, or
/// down to `end` at `steps`. With several cycles the curve starts again from the peak, each as long
/// as the others (Loshchilov and Hutter 2017).
struct LearningRate {
  double peak = 1e-4;
  Decay decay = Decay::constant;
  std::int64_t warmup = 0;  ///< steps
  std::int64_t steps = 1;
  double warmup_share = 0.0;  ///< of the steps, in place of `warmup`; 0 = none
  std::int64_t cycles = 1;
  double power = 1.0;  ///< of polynomial
  double end = 0.0;    ///< the rate at the end

  std::int64_t warmup_steps() const;

  /// The rate of step number `step`, counted from 0.
  double at(std::int64_t step) const;
};

}  // namespace ringlet::train
