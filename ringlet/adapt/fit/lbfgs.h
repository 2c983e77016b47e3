// Minimisation by L-BFGS (Nocedal 1980; Nocedal and Wright, "Numerical Optimization", ch. 7).
#pragma once

#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

namespace ringlet::adapt {

/// The value at x [n], fp64, and its gradient.
using Objective = std::function<double(const at::Tensor& x, at::Tensor& gradient)>;

struct LbfgsOptions {
  std::int64_t steps = 1000;  ///< at most
  double tolerance = 1e-3;    ///< least relative fall of the value over `window` steps
  std::int64_t window = 50;
  double small = 0.0;  ///< a value that is good enough
};

struct Minimum {
  double value = 0.0;
  std::int64_t steps = 0;
  bool converged = false;  ///< the value is small, or falls no more
};

/// Moves x [n], fp64, to the best point that was seen.
Minimum minimise(const Objective& objective, at::Tensor& x, const LbfgsOptions& options);

}  // namespace ringlet::adapt
