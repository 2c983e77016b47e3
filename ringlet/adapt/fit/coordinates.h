// Parameters as one vector for a search, in coordinates in which the error is about as steep in
// every direction.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

namespace ringlet::adapt {

/// Numbers y with parameters x = L^-T y, where L L^t is near the Hessian: gradient steps in y are
/// Newton steps in x as far as the Gram matrices tell. They are those of single cores, which leaves
/// out how cores depend on each other.
class Coordinates {
 public:
  /// `grams`, empty or one for each tensor: of a tensor-ring matrix's core [f, f, R, R] the one
  /// [f R², f R²] over all axes but the second, of a ring's core [f, R, R] the one [R², R²] over
  /// all but the first; fp64. Without them y is x.
  Coordinates(std::vector<at::Tensor> tensors, const std::vector<at::Tensor>& grams);

  at::Tensor point() const;                 ///< y [n], fp64
  void move_to(const at::Tensor& y) const;  ///< sets the tensors
  at::Tensor take_gradient() const;         ///< with respect to y; clears those of the tensors

 private:
  at::Tensor combined(const std::vector<at::Tensor>& values,
                      const std::vector<at::Tensor>& factors) const;

  std::vector<at::Tensor> tensors_;
  std::vector<at::Tensor> roots_, inverses_;  ///< L^t and L^-1, or none
};

}  // namespace ringlet::adapt
