// The residual of the paper: a tensor ring (Tao et al. 2025, arXiv 2501.08727, §3).
#pragma once

#include <cstdint>
#include <vector>

#include "ringlet/adapt/part.h"
#include "ringlet/adapt/parts/factors.h"
#include "ringlet/core/random.h"

namespace ringlet::adapt {

/// Deviations of the cores that do not start at zero.
enum class TensorRingStart {
  kaiming,  ///< down varies as much as that of LoRA, 1 / (3 in), and B^2 … B^D keep lengths
  paper,    ///< sqrt(R) / (f_d R), the spectral muP scale of a map from f_d R to R, for all
};

/// D[i, j] = tr(B^1[i1] … B^D[iD] C^1[j1] … C^D[jD]) with cores [f_d, R, R]; the positions of a
/// convolution's kernel are one more mode after the input's. Starts at zero (B^1 = 0, the others
/// normal; see TensorRingStart).
///
/// Cut between B and C it is a product of rank R^2: up = B^1 … B^D, down = C^1 … C^D.
class TensorRing final : public FactoredResidual {
 public:
  TensorRing(const LayerShape& shape, const Factors& out, const Factors& in, std::int64_t rank,
             TensorRingStart start, RandomStream random);

  Parameters parameters() const override;
  std::vector<const Derived*> derived() const override { return {&up_, &down_}; }

 protected:
  Pair factors() const override;

 private:
  std::vector<at::Tensor> out_;  ///< B
  std::vector<at::Tensor> in_;   ///< C
  at::Tensor kernel_;            ///< core of the kernel's positions; undefined for one position
  Derived up_, down_;            ///< [(a, b), out] and [(a, b), in(, positions)]
};

}  // namespace ringlet::adapt
