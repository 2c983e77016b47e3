// How a network's error is counted: weights by noise level, and losses that grow more slowly than
// squares.
#pragma once

#include <array>
#include <utility>

#include <ATen/core/Tensor.h>

#include "ringlet/diffusion/denoiser.h"
#include "ringlet/diffusion/noise_process.h"

namespace ringlet::diffusion {

/// What becomes of a difference d, with a width c.
enum class LossKind {
  l2,         ///< d^2
  huber,      ///< 2 c (sqrt(d^2 + c^2) - c), the pseudo-Huber loss of kohya's trainer
  smooth_l1,  ///< 2 (sqrt(d^2 + c^2) - c)
};

inline constexpr std::array<std::pair<const char*, LossKind>, 3> kLossNames = {
    {{"l2", LossKind::l2}, {"huber", LossKind::huber}, {"smooth-l1", LossKind::smooth_l1}}};

/// How the width follows from the noise level; huber_width has the formulas.
enum class HuberSchedule { constant, exponential, snr };

inline constexpr std::array<std::pair<const char*, HuberSchedule>, 3> kHuberScheduleNames = {
    {{"constant", HuberSchedule::constant},
     {"exponential", HuberSchedule::exponential},
     {"snr", HuberSchedule::snr}}};

struct LossRule {
  LossKind kind = LossKind::l2;
  HuberSchedule huber_schedule = HuberSchedule::snr;
  double huber_c = 0.1;
  double min_snr_gamma = 0.0;  ///< min_snr_weight; 0 = off
  double p2_gamma = 0.0;       ///< p2_weight; 0 = off
  bool debiased = false;       ///< debiased_weight
};

/// 1 / sqrt(SNR) for a network that predicts epsilon and 1 / (SNR + 1) for v, with SNR <= 1000, as
/// in kohya's trainer (Yu et al. 2024, "Debias the Training of Diffusion Models"). For the others
/// the weight that makes their squared error epsilon's. 1 where there is no signal and the formula
/// has no value.
double debiased_weight(Prediction prediction, const NoiseLevel& level);

/// 1 / (1 + SNR)^gamma for a network that predicts epsilon (Choi et al. 2022, "Perception
/// Prioritized Training of Diffusion Models", k = 1), and for the others the weight that makes
/// their squared error the same loss.
double p2_weight(Prediction prediction, const NoiseLevel& level, double gamma);

/// All weights of a rule together, with those of the process itself. They are factors, as in
/// kohya's trainer.
double level_weight(const NoiseProcess& process, const NoiseLevel& level, const LossRule& rule);

/// The width c of a level: huber_c; huber_c^(t / T) at timestep t of T; or, with the
/// noise-to-signal ratio s, (1 - huber_c) / (1 + s)^2 + huber_c. As in kohya's trainer.
double huber_width(const NoiseProcess& process, const NoiseLevel& level, const LossRule& rule);

/// LossKind of every number of `difference`; `width` is broadcast to it, and not read for l2.
at::Tensor loss_of(LossKind kind, const at::Tensor& difference, const at::Tensor& width);

}  // namespace ringlet::diffusion
