// Orthogonal matrices from skew-symmetric ones: the Cayley transform and its variants.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace ringlet::adapt {

/// Q from the numbers above its diagonal, row by row: v […, b (b - 1) / 2] -> […, b, b].
at::Tensor skew_from_triangle(const at::Tensor& v, std::int64_t size);

/// scale (M - M^t) for M [..., b, b].
at::Tensor skew_part(const at::Tensor& m, double scale);

/// R = (I + Q) (I - Q)^-1 for skew-symmetric Q [..., b, b]; exactly orthogonal.
at::Tensor cayley(const at::Tensor& q);

/// The series I + 2 Q + 2 Q^2 + … + Q^h for (I + Q) (I - Q)^-1, orthogonal to order h. PEFT's
/// `terms` gives h = max(3, terms - 1) from three terms on, which is followed here (3 and 4 are the
/// same).
at::Tensor cayley_neumann(const at::Tensor& q, std::int64_t terms);

/// Q […, n, b, b] shrunk to a Frobenius norm of at most `most`, each matrix alone or all n together
/// (COFT; Qiu et al. 2023, §3.3).
at::Tensor limit_norm(const at::Tensor& q, double most, bool each);

}  // namespace ringlet::adapt
