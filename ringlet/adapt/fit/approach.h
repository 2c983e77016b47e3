// Residuals of several factors, each of which has a best value for the others.
#pragma once

#include <ATen/core/Tensor.h>

namespace ringlet::adapt {

/// What a fit asks of a residual whose factors it can bring to a known difference in turns.
class Approaching {
 public:
  virtual ~Approaching() = default;

  /// Brings D nearer to `difference`, of the weight's shape: each factor in turn becomes the best
  /// one for the others. `first` also chooses where to start. False, and nothing is changed, for a
  /// form that has no such turns.
  virtual bool approach(const at::Tensor& difference, bool first) = 0;

  /// Whether turns alone end at a best D. Where there are more factors than two they may creep, and
  /// a search continues from where they end.
  virtual bool turns_suffice() const = 0;
};

}  // namespace ringlet::adapt
