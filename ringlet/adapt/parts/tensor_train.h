// The residual of LoRETTA (Yang et al. 2024, "LoRETTA: Low-Rank Economic Tensor-Train Adaptation").
#pragma once

#include <cstdint>
#include <vector>

#include "ringlet/adapt/part.h"
#include "ringlet/adapt/parts/factors.h"

namespace ringlet::adapt {

/// D[i, j] = B^1[i1] … B^D[iD] C^1[j1] … C^D[jD]: a train, that is an open ring, whose first core
/// [f, 1, R] and last core [f, R, 1] are vectors and the others [f, R, R] matrices. The positions
/// of a convolution's kernel are one more mode before the input's. Starts at zero (B^1 = 0): the
/// random start of the method's authors changes the base.
///
/// Cut between B and C it is a product of rank R.
class TensorTrain final : public FactoredResidual {
 public:
  TensorTrain(const LayerShape& shape, const Factors& out, const Factors& in, std::int64_t rank,
              RandomStream random);

  Parameters parameters() const override;
  std::vector<const Derived*> derived() const override { return {&up_, &down_}; }

 protected:
  Pair factors() const override;

 private:
  std::vector<at::Tensor> out_;  ///< B
  std::vector<at::Tensor> in_;   ///< C
  at::Tensor kernel_;            ///< undefined for one position
  Derived up_, down_;            ///< [R, out] and [R, in(, positions)]
};

}  // namespace ringlet::adapt
