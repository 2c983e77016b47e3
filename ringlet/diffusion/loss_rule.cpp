#include "ringlet/diffusion/loss_rule.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ringlet::diffusion {
namespace {

/// Squares of a level's factors, as shares of their sum: SNR is signal / noise.
struct Powers {
  double signal, noise;
};

Powers powers_of(const NoiseLevel& level) {
  const double signal = level.alpha * level.alpha, noise = level.sigma * level.sigma;
  return {signal / (signal + noise), noise / (signal + noise)};
}

/// What a weight of epsilon's squared error becomes for that of another prediction, so that the
/// losses are the same; as min_snr_weight has it.
double carried_over(Prediction prediction, const NoiseLevel& level) {
  const double signal = level.alpha * level.alpha, noise = level.sigma * level.sigma;
  switch (prediction) {
    case Prediction::epsilon:
      break;
    case Prediction::v:
      return signal / ((signal + noise) * (signal + noise));
    case Prediction::sample:
      return noise == 0.0 ? std::numeric_limits<double>::infinity() : signal / noise;
    case Prediction::flow:
      return signal / ((level.alpha + level.sigma) * (level.alpha + level.sigma));
  }
  return 1.0;
}

}  // namespace

double debiased_weight(Prediction prediction, const NoiseLevel& level) {
  constexpr double kMost = 1000.0;
  const auto [signal, noise] = powers_of(level);
  const double snr = signal >= kMost * noise ? kMost : signal / noise;
  if (prediction == Prediction::v) return 1.0 / (snr + 1.0);
  if (snr == 0.0) return 1.0;
  const double weight = carried_over(prediction, level) / std::sqrt(snr);
  return std::isfinite(weight) ? weight : std::sqrt(kMost);
}

double p2_weight(Prediction prediction, const NoiseLevel& level, double gamma) {
  const double weight = std::pow(powers_of(level).noise, gamma);  // 1 / (1 + SNR)^gamma
  return weight == 0.0 ? 0.0 : weight * carried_over(prediction, level);
}

double level_weight(const NoiseProcess& process, const NoiseLevel& level, const LossRule& rule) {
  double weight = process.loss_weight(level, rule.min_snr_gamma);
  if (rule.debiased) weight *= debiased_weight(process.prediction(), level);
  if (rule.p2_gamma > 0.0) weight *= p2_weight(process.prediction(), level, rule.p2_gamma);
  return weight;
}

double huber_width(const NoiseProcess& process, const NoiseLevel& level, const LossRule& rule) {
  switch (rule.huber_schedule) {
    case HuberSchedule::exponential: {
      const double whole = process.has_whole_timesteps() ? 1.0 : 0.0;
      return std::pow(rule.huber_c, level.timestep / (process.level_at(1.0).timestep + whole));
    }
    case HuberSchedule::snr: {
      const double ratio = level.sigma / level.alpha;  // infinite without signal
      return (1.0 - rule.huber_c) / ((1.0 + ratio) * (1.0 + ratio)) + rule.huber_c;
    }
    case HuberSchedule::constant:
      break;
  }
  return rule.huber_c;
}

at::Tensor loss_of(LossKind kind, const at::Tensor& difference, const at::Tensor& width) {
  if (kind == LossKind::l2) return difference.pow(2);
  const at::Tensor beyond = (difference.pow(2) + width.pow(2)).sqrt() - width;
  return kind == LossKind::huber ? 2.0 * width * beyond : 2.0 * beyond;
}

}  // namespace ringlet::diffusion
