// The residual of FouRA (Borse et al. 2024, "FouRA: Fourier Low Rank Adaptation").
#pragma once

#include <cstdint>
#include <vector>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// D = (alpha / rank) Re( F^-1 up diag(g) down F ), F the unitary discrete Fourier transform over
/// the channels (a fixed transform of the input, its inverse on the output), up and down real and
/// of low rank. Starts at zero (up = 0).
///
/// The gate g = 2 sigmoid(v), one number per rank that starts at 1, is the input-independent form
/// of the paper's rank gate, which reads the activations: only this one can be merged into weights.
///
/// Re(F^-1 U D F) = C U D C + S U D S with the cosines C and the sines S: a low rank of 2 rank,
/// whose factors are Fourier transforms of the small ones.
class Foura final : public FactoredResidual {
 public:
  Foura(const LayerShape& shape, std::int64_t rank, double scale, bool gate, RandomStream random);

  Parameters parameters() const override;
  std::vector<const Derived*> derived() const override { return {&up_factor_, &down_factor_}; }

 protected:
  Pair factors() const override;

 private:
  at::Tensor down_, up_;
  at::Tensor gate_;  ///< v [rank]; undefined without a gate
  double scale_;
  Derived up_factor_, down_factor_;  ///< [2 rank, out] and [2 rank, in(, kh, kw)]
};

}  // namespace ringlet::adapt
