// Householder reflection adaptation (Yuan et al. 2024, "Bridging The Gap between Low-rank and
// Orthogonal Adaptation via Householder Reflection Adaptation").
#pragma once

#include <cstdint>
#include <vector>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// T = H_1 … H_r, H_k = I - 2 u_k u_k^t / |u_k|^2. Starts at pairs of equal reflections, which
/// cancel. Computed as I - U S U^t with S^-1 = I/2 + the part of U^t U above its diagonal (the
/// compact WY form), which costs what a low rank r costs.
///
/// With `orthogonalised` the u_k are made orthonormal first and S = 2 I. Such a product is never
/// the identity, so that it can be read but not started.
class Householder final : public Transform {
 public:
  /// Throws Error(unsupported) for an odd rank or orthogonalised vectors when it is to start.
  Householder(std::int64_t width, std::int64_t rank, bool orthogonalised, bool start,
              RandomStream random);

  std::int64_t width() const override { return u_.size(0); }
  at::Tensor forward(const at::Tensor& x) const override;
  at::Tensor right_multiply(const at::Tensor& w) const override;
  Parameters parameters() const override { return {{"u", u_}}; }
  Parameters starts() const override { return {{"u", u_start_}}; }
  std::vector<const Derived*> derived() const override { return {&form_}; }
  double multiply_adds() const override { return 2.0 * static_cast<double>(u_.numel()); }
  double written() const override { return static_cast<double>(u_.size(0) + u_.size(1)); }

 private:
  at::Tensor u_;        ///< [width, r]
  at::Tensor u_start_;  ///< pairs of equal columns
  Derived form_;        ///< U [width, r], columns of length 1, and -U S
};

}  // namespace ringlet::adapt
