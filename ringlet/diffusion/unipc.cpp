// UniPC: a predictor and a corrector of the same order that share their network calls.
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/diffusion/noise_process.h"
#include "ringlet/diffusion/samplers.h"

namespace ringlet::diffusion {
namespace {

/// phi-functions of one interval of log-SNR h (Zhao et al. 2023, "UniPC", §3 with B(h) = e^-h - 1).
/// From pure noise h is infinite: B = -1, the first-order step keeps nothing of x, and estimates
/// made there get no weight later, all of it exact in floating point.
struct Interval {
  double h;
  double b;        ///< B = expm1(-h)
  double weight1;  ///< first right-hand side of the order conditions
  double weight2;  ///< second right-hand side
};

Interval interval(const NoiseLevel& from, const NoiseLevel& to) {
  const double h = to.log_snr() - from.log_snr();
  const double b = std::expm1(-h);
  const double phi = b / -h - 1.0;
  return {h, b, phi / b, 2.0 * (phi / -h - 0.5) / b};
}

/// Estimates of x0 that the solver remembers.
struct Point {
  NoiseLevel level;
  at::Tensor x0;
};

at::Tensor first_order(const at::Tensor& x, const Point& at_from, const NoiseLevel& to, double b) {
  return (to.sigma / at_from.level.sigma) * x - (to.alpha * b) * at_from.x0;
}

/// From `newest` to `to`; `older` gives order 2.
at::Tensor predict(const at::Tensor& x, const Point& newest, const std::optional<Point>& older,
                   const NoiseLevel& to) {
  if (!older) return first_order(x, newest, to, ratio_quotient(newest.level, to) - 1.0);
  const Interval s = interval(newest.level, to);
  const double r = (older->level.log_snr() - newest.level.log_snr()) / s.h;
  const at::Tensor slope = (older->x0 - newest.x0) / r;
  return first_order(x, newest, to, s.b) - (0.5 * to.alpha * s.b) * slope;
}

/// Repeats the step from `newest` to `to`, now with x0 known there.
at::Tensor correct(const at::Tensor& x, const Point& newest, const std::optional<Point>& older,
                   const Point& to) {
  const Interval s = interval(newest.level, to.level);
  const at::Tensor difference = to.x0 - newest.x0;
  at::Tensor residual;
  if (!older) {
    residual = 0.5 * difference;
  } else {
    const double r = (older->level.log_snr() - newest.level.log_snr()) / s.h;
    const double old_weight = (s.weight1 - s.weight2) / (1.0 - r);
    residual = (old_weight / r) * (older->x0 - newest.x0) + (s.weight1 - old_weight) * difference;
  }
  return first_order(x, newest, to.level, s.b) - (to.level.alpha * s.b) * residual;
}

}  // namespace

/// Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework", order 2, B2, on x0.
at::Tensor sample_unipc(const Denoiser& denoise, at::Tensor x, const SamplingSteps& path,
                        const NoiseSource&, const StepCallback& callback) {
  std::optional<Point> newest, older;
  at::Tensor before;        // x before the last prediction
  bool used_older = false;  // order of the last prediction
  const std::size_t count = path.steps.size();
  for (std::size_t i = path.start; i < count; ++i) {
    const auto& [from, to] = path.steps[i];
    const at::Tensor raw = raw_output(*path.process, denoise, x, from);
    Point here{from, estimate(path.process->prediction(), raw, x, from).x0};
    if (newest) x = correct(before, *newest, used_older ? older : std::nullopt, here);
    older = std::exchange(newest, std::move(here));
    used_older = older.has_value() && i + 1 < count;
    before = x;
    x = predict(x, *newest, used_older ? older : std::nullopt, to);
    if (callback && !callback({i + 1, count, x}))
      throw Error(ErrorCode::cancelled, "sampling", "stopped after step " + std::to_string(i + 1));
  }
  return x;
}

}  // namespace ringlet::diffusion
