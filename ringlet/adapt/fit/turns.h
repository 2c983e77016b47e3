// The end of searches that improve parts in turns.
#pragma once

#include <vector>

namespace ringlet::adapt {

/// Whether ten turns have lowered a squared error by a smaller share than the tolerance, or it is
/// as small as rounding lets it be.
class Turns {
 public:
  explicit Turns(double tolerance) : tolerance_(tolerance) {}

  /// `error` after a turn, relative.
  bool converged(double error) {
    constexpr std::size_t kWindow = 10;
    constexpr double kSmall = 1e-12;
    errors_.push_back(error);
    if (error <= kSmall) return true;
    if (errors_.size() <= kWindow) return false;
    const double before = errors_[errors_.size() - 1 - kWindow];
    return before - error < tolerance_ * before;
  }

 private:
  double tolerance_;
  std::vector<double> errors_;
};

}  // namespace ringlet::adapt
