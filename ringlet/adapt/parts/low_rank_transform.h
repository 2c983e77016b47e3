// The transform of GLoRA (Chavan et al. 2023, "One-for-All: Generalized LoRA").
#pragma once

#include <cstdint>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// x + scale P Q x for vectors along the last axis: P [width, r], Q [r, width].
at::Tensor add_low_rank(const at::Tensor& x, const at::Tensor& p, const at::Tensor& q,
                        double scale = 1.0);

/// T = I + (alpha / rank) a1 a2, a1 [in, rank] at a Kaiming start, a2 [rank, in] at zero.
class LowRankTransform final : public Transform {
 public:
  LowRankTransform(std::int64_t width, std::int64_t rank, double scale, RandomStream random);

  std::int64_t width() const override { return a1_.size(0); }
  at::Tensor forward(const at::Tensor& x) const override;
  at::Tensor right_multiply(const at::Tensor& w) const override;
  Parameters parameters() const override { return {{"a1", a1_}, {"a2", a2_}}; }
  Parameters starts() const override { return {{"a1", a1_start_}}; }
  double multiply_adds() const override { return 2.0 * static_cast<double>(a1_.numel()); }
  double written() const override { return static_cast<double>(a1_.size(0) + a1_.size(1)); }

 private:
  at::Tensor a1_, a2_, a1_start_;
  double scale_;
};

}  // namespace ringlet::adapt
