#include "ringlet/adapt/fit/lbfgs.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <optional>
#include <vector>

namespace ringlet::adapt {
namespace {

double scalar_product(const at::Tensor& a, const at::Tensor& b) { return a.dot(b).item<double>(); }

struct Point {
  at::Tensor x;
  double value = 0.0;
  at::Tensor gradient;
};

/// The last steps and how they changed the gradient.
class Memory {
 public:
  /// The two-loop recursion: minus the inverse Hessian times the gradient.
  at::Tensor direction(const at::Tensor& gradient) const {
    at::Tensor q = -gradient;
    std::vector<double> weights;
    for (auto pair = pairs_.rbegin(); pair != pairs_.rend(); ++pair) {
      weights.push_back(scalar_product(pair->step, q) / pair->product);
      q.add_(pair->change, -weights.back());
    }
    if (!pairs_.empty()) {
      const Pair& last = pairs_.back();
      q.mul_(last.product / scalar_product(last.change, last.change));
    }
    for (const Pair& pair : pairs_) {
      q.add_(pair.step, weights.back() - scalar_product(pair.change, q) / pair.product);
      weights.pop_back();
    }
    return q;
  }

  void add(const Point& from, const Point& to) {
    constexpr std::size_t kLength = 20;
    Pair pair{to.x - from.x, to.gradient - from.gradient, 0.0};
    pair.product = scalar_product(pair.step, pair.change);
    constexpr double kSmallest = 1e-12;
    if (!(pair.product > kSmallest * scalar_product(pair.change, pair.change)))
      return;  // no curvature
    pairs_.push_back(std::move(pair));
    if (pairs_.size() > kLength) pairs_.pop_front();
  }

  bool empty() const { return pairs_.empty(); }
  void clear() { pairs_.clear(); }

 private:
  struct Pair {
    at::Tensor step, change;
    double product;
  };
  std::deque<Pair> pairs_;
};

/// A step along `direction` that satisfies the weak Wolfe conditions, by bisection (Lewis and
/// Overton 2013), or the best of those tried, or nothing when none is better.
std::optional<Point> search(const Objective& objective, const Point& from,
                            const at::Tensor& direction, double length) {
  constexpr double kFall = 1e-4, kCurvature = 0.9;
  constexpr int kMostTries = 20;
  const double slope = scalar_product(from.gradient, direction);
  if (!(slope < 0.0)) return std::nullopt;
  double low = 0.0, high = std::numeric_limits<double>::infinity();
  std::optional<Point> best;
  for (int i = 0; i < kMostTries; ++i) {
    Point point;
    point.x = from.x + length * direction;
    point.value = objective(point.x, point.gradient);
    const bool falls = point.value <= from.value + kFall * length * slope;
    const bool flat = falls && scalar_product(point.gradient, direction) >= kCurvature * slope;
    if (point.value < (best ? best->value : from.value)) best = point;
    if (flat) break;
    (falls ? low : high) = length;
    length = std::isinf(high) ? 2.0 * length : (low + high) / 2.0;
  }
  return best;
}

}  // namespace

Minimum minimise(const Objective& objective, at::Tensor& x, const LbfgsOptions& options) {
  Point here{x, 0.0, {}};
  here.value = objective(here.x, here.gradient);
  std::vector<double> values = {here.value};
  Memory memory;
  Minimum minimum;
  while (minimum.steps < options.steps && !minimum.converged) {
    // A first step of length 0.1, small beside weights of order one.
    constexpr double kFirst = 0.1;
    const double norm = std::sqrt(scalar_product(here.gradient, here.gradient));
    if (norm == 0.0) minimum.converged = true;
    if (minimum.converged) break;
    const double length = memory.empty() ? std::min(1.0, kFirst / norm) : 1.0;
    auto next = search(objective, here, memory.direction(here.gradient), length);
    if (!next) {
      minimum.converged = memory.empty();  // not even downhill: as low as rounding lets it be
      memory.clear();
      continue;
    }
    ++minimum.steps;
    memory.add(here, *next);
    here = *std::move(next);
    values.push_back(here.value);
    const auto now = static_cast<std::int64_t>(values.size()) - 1;
    const double before =
        values[static_cast<std::size_t>(std::max<std::int64_t>(0, now - options.window))];
    minimum.converged = here.value <= options.small ||
                        (now >= options.window && before - here.value < options.tolerance * before);
  }
  x = here.x;
  minimum.value = here.value;
  return minimum;
}

}  // namespace ringlet::adapt
