// Scales per channel (IA3; Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and
// Cheaper than In-Context Learning").
#pragma once

#include <cstdint>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// T = diag(l), l starting at 1; with `offset` T = diag(1 + l), l starting at 0 (LyCORIS). On the
/// output side it may scale the bias, too (PEFT).
class Diagonal final : public Transform {
 public:
  Diagonal(std::int64_t width, Side side, bool offset, bool with_bias);

  Side side() const override { return side_; }
  std::int64_t width() const override { return scale_.numel(); }
  at::Tensor forward(const at::Tensor& x) const override;
  at::Tensor right_multiply(const at::Tensor& w) const override { return forward(w); }
  Parameters parameters() const override { return {{"scale", scale_}}; }
  Parameters starts() const override;
  bool takes_bias() const override { return with_bias_; }
  double multiply_adds() const override { return static_cast<double>(scale_.numel()); }
  double written() const override { return static_cast<double>(scale_.numel()); }

 private:
  Side side_;
  bool offset_;
  bool with_bias_;
  at::Tensor scale_;
};

}  // namespace ringlet::adapt
