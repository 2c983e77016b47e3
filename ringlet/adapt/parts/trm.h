// The transform of the paper: a tensor-ring matrix (Tao et al. 2025, arXiv 2501.08727, §3).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ringlet/adapt/derived.h"
#include "ringlet/adapt/kernels/ring_kernel.h"
#include "ringlet/adapt/part.h"
#include "ringlet/adapt/parts/factors.h"
#include "ringlet/adapt/parts/ring.h"
#include "ringlet/core/random.h"

namespace ringlet::adapt {

/// Where the ring starts; T is the identity in both cases.
enum class TrmStart {
  paper,  ///< all rank slices equal (Proposition 1). They get equal gradients and stay equal, so
          ///< that T remains a Kronecker product whatever the rank
  asymmetric,  ///< delta_ij M_d with unequal random M_d and tr(M_1 … M_D) = 1
};

/// T[i, j] = tr(A^1[i1, j1] … A^D[iD, jD]), cores A^d [f_d, f_d, R, R] over the factors of `width`
/// (their product may be larger: vectors are padded with zeros and cut).
///
/// T acts core by core in one kernel, on devices and in types that have it (kernels/ring_kernel.h)
/// and for ranks for which that is cheaper. Else it acts through the ring's two factors, or is
/// formed where it is narrow, since a product of its own width costs less than two smaller ones.
class TensorRingMatrix final : public Transform {
 public:
  TensorRingMatrix(std::int64_t width, const Factors& factors, std::int64_t rank, TrmStart start,
                   RandomStream random);

  std::int64_t width() const override { return width_; }
  at::Tensor forward(const at::Tensor& x) const override;
  at::Tensor right_multiply(const at::Tensor& w) const override;
  /// T itself, [width, width], which knows its derivatives.
  at::Tensor matrix() const;

  Parameters parameters() const override;
  Parameters starts() const override;
  std::vector<const Derived*> derived() const override;
  at::Tensor identity_penalty() const override;
  at::Tensor orthogonal_penalty() const override;
  double multiply_adds() const override;
  double written() const override;

 private:
  static Parameters named(const std::vector<at::Tensor>& cores);
  double ring_multiply_adds() const;
  double ring_written() const;
  double chain_multiply_adds() const;
  const RingKernel* kernel_for(const at::Tensor& x) const;
  at::Tensor apply(const Derived& factors, const at::Tensor& x) const;

  std::int64_t width_;
  std::vector<at::Tensor> cores_;
  std::vector<at::Tensor> start_;
  bool fused_;  ///< by the kernel, where there is one
  bool formed_;
  Derived matrix_;                ///< T, where it is formed
  Derived factors_, transposed_;  ///< else the factors of its ring, and those of T transposed
};

/// Identity cores [f_d, f_d, R, R] for the given factors.
std::vector<at::Tensor> identity_cores(const Factors& factors, std::int64_t rank, TrmStart start,
                                       RandomStream random);

}  // namespace ringlet::adapt
