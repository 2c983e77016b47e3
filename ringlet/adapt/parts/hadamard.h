// The residual of LoHa (Hyeon-Woo et al. 2022, "FedPara"; LyCORIS).
#pragma once

#include <cstdint>
#include <vector>

#include "ringlet/adapt/fit/approach.h"
#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// D = scale (w1_a w1_b) ⊙ (w2_a w2_b), w_a [out, rank], w_b [rank, in * kh * kw]; with `tucker`
/// each factor is sum_ij t[i, j, k, l] w_a[i, out] w_b[j, in] with t [rank, rank, kh, kw] (LyCORIS
/// and PEFT keep w_a as [rank, out] then). Starts at zero (w2_a = 0).
///
/// A product of low ranks is one of rank^2: row (k, l) of `down` is w1_b[k] ⊙ w2_b[l].
class Hadamard final : public FactoredResidual, public Approaching {
 public:
  Hadamard(const LayerShape& shape, std::int64_t rank, double scale, bool tucker,
           RandomStream random);

  Parameters parameters() const override;
  std::vector<const Derived*> derived() const override { return {&up_, &down_}; }

  /// Rows of w1_a and w2_a and columns of w1_b and w2_b by least squares; none for Tucker cores.
  bool approach(const at::Tensor& difference, bool first) override;
  bool turns_suffice() const override { return false; }

 protected:
  Pair factors() const override;

 private:
  at::Tensor w1_a_, w1_b_, w2_a_, w2_b_;
  at::Tensor t1_, t2_;  ///< undefined without tucker
  double scale_;
  Derived up_, down_;  ///< [(k, l), out] and [(k, l), patch]
};

}  // namespace ringlet::adapt
