// UniPC: a predictor and a corrector of the same order that share their network calls.
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/diffusion/samplers.h"

namespace ringlet::diffusion {
namespace {

/// phi-functions of one interval of log-SNR h (Zhao et al. 2023, "UniPC", §3 with B(h) = e^-h - 1).
struct Interval {
  double h;
  double b;        ///< B = expm1(-h)
  double weight1;  ///< first right-hand side of the order conditions
  double weight2;  ///< second right-hand side
};

Interval interval(const NoiseLevel& from, const NoiseLevel& to) {
  const double h = std::log(from.ratio() / to.ratio());
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
  if (!older) return first_order(x, newest, to, to.ratio() / newest.level.ratio() - 1.0);
  const Interval s = interval(newest.level, to);
  const double r = std::log(newest.level.ratio() / older->level.ratio()) / s.h;
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
    const double r = std::log(newest.level.ratio() / older->level.ratio()) / s.h;
    const double old_weight = (s.weight1 - s.weight2) / (1.0 - r);
    residual = (old_weight / r) * (older->x0 - newest.x0) + (s.weight1 - old_weight) * difference;
  }
  return first_order(x, newest, to.level, s.b) - (to.level.alpha * s.b) * residual;
}

}  // namespace

/// Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework", order 2, B2, on x0.
at::Tensor sample_unipc(const Denoiser& denoise, at::Tensor x, const SamplingPlan& plan,
                        const NoiseSource&, const StepCallback& callback) {
  std::optional<Point> newest, older;
  at::Tensor before;        // x before the last prediction
  bool used_older = false;  // order of the last prediction
  const std::size_t count = plan.steps.size();
  for (std::size_t i = plan.start; i < count; ++i) {
    const auto& [from, to] = plan.steps[i];
    Point here{from, estimate(plan.prediction(), denoise(x, from), x, from).x0};
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
