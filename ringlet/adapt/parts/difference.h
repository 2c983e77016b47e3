// A whole matrix as the residual: full fine-tuning of a layer, and the carrier that every reader of
// adapter files knows (`diff`).
#pragma once

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// D itself, of the weight's shape, starting at zero.
class Difference final : public Residual {
 public:
  explicit Difference(const LayerShape& shape);

  at::Tensor forward(const nn::Layer& layer, const at::Tensor& x) const override;
  at::Tensor weight() const override { return difference_; }
  Parameters parameters() const override { return {{"diff", difference_}}; }
  double multiply_adds() const override { return static_cast<double>(difference_.numel()); }
  double forming() const override { return 0.0; }

 private:
  at::Tensor difference_;
};

}  // namespace ringlet::adapt
