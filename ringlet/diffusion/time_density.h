// From which times training learns, and what rectified flow's losses weigh (Esser et al. 2024,
// "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", §3.1).
#pragma once

#include <array>
#include <optional>
#include <utility>

#include "ringlet/core/random.h"

namespace ringlet::diffusion {

/// The distribution of a training time in [0, 1], before the shift.
enum class TimeDistribution {
  uniform,
  logit_normal,  ///< logit_normal_time, eq. 19
  mode,          ///< mode_time, eq. 20
  cosmap,        ///< cosmap_time, eq. 21
};

inline constexpr std::array<std::pair<const char*, TimeDistribution>, 4> kTimeDistributionNames = {
    {{"uniform", TimeDistribution::uniform},
     {"logit-normal", TimeDistribution::logit_normal},
     {"mode", TimeDistribution::mode},
     {"cosmap", TimeDistribution::cosmap}}};

struct TimeDensity {
  TimeDistribution distribution = TimeDistribution::logit_normal;
  double mean = 0.0;       ///< of logit_normal; above 0 = more noise
  double deviation = 1.0;  ///< of logit_normal
  double mode_scale = 1.29;
  double least = 0.0, most = 1.0;  ///< the density is squeezed between them
};

/// The sigmoid of mean + deviation * normal, a standard normal number. diffusers' scripts count the
/// time of a draw from the noisy end: their mean is this one's negative.
double logit_normal_time(double normal, double mean, double deviation);

/// Of a uniform number u in [0, 1): more of both ends or, with a larger scale, of the middle.
double mode_time(double u, double scale);

/// Of a uniform number u in [0, 1), so that the density is 2 / (pi (1 - 2 t + 2 t^2)), as if noise
/// were added along a quarter of a circle.
double cosmap_time(double u);

/// One time of the density.
double draw_time(RandomStream& random, const TimeDensity& density);

struct TrainingTimes;

/// The density with what was chosen. Throws Error(invalid_argument) for numbers that belong to
/// another distribution, and for a range that is none.
TimeDensity with_choices(TimeDensity density, const TrainingTimes& times);

/// What the squared error of a row is multiplied by.
enum class SigmaWeighting {
  none,
  sigma_sqrt,  ///< 1 / sigma^2, as diffusers names it
  cosmap,      ///< the density of cosmap_time at sigma, for times that are drawn uniformly
};

inline constexpr std::array<std::pair<const char*, SigmaWeighting>, 3> kSigmaWeightingNames = {
    {{"none", SigmaWeighting::none},
     {"sigma-sqrt", SigmaWeighting::sigma_sqrt},
     {"cosmap", SigmaWeighting::cosmap}}};

/// sigma in (0, 1].
double sigma_weight(SigmaWeighting weighting, double sigma);

/// What a user chooses of the times that training draws; none = the process's own.
struct TrainingTimes {
  std::optional<TimeDistribution> distribution = {};
  std::optional<double> mean = {};        ///< of logit_normal
  std::optional<double> deviation = {};   ///< of logit_normal, above 0
  std::optional<double> mode_scale = {};  ///< of mode
  std::optional<SigmaWeighting> weighting = {};
  std::optional<double> shift = {};  ///< above 0, whatever the picture's size; 1 = none
  double least = 0.0, most = 1.0;    ///< times that are drawn lie between them, before the shift

  bool any() const {
    return distribution || mean || deviation || mode_scale || weighting || shift || least > 0.0 ||
           most < 1.0;
  }
};

}  // namespace ringlet::diffusion
