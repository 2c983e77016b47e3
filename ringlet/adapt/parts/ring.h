// Tensor-ring algebra: the equations of the TRM and the TR, each in one place.
//
// Multi-indices are little-endian: i = i1 + i2*I1 + i3*I1*I2 + … A ring's cores are matrices over
// the rank axes; closing the ring is a trace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace ringlet::adapt {

/// P[i] = C1[i1] C2[i2] … : cores [I_d, R, R] -> [I, R, R].
at::Tensor chain_of_vectors(const std::vector<at::Tensor>& cores);

/// P[i, j] = A1[i1, j1] A2[i2, j2] … : cores [I_d, J_d, R, R] -> [I, J, R, R].
at::Tensor chain_of_matrices(const std::vector<at::Tensor>& cores);

/// A closed ring of matrices cut in two places: T = sum_ab L_ab (x) M_ba, with
/// L [I_L, J_L, R, R] over the first modes and M [I_M, J_M, R, R] over the others.
struct SplitRing {
  at::Tensor left;
  at::Tensor right;

  /// The ring of T transposed.
  SplitRing transposed() const;
};

/// Where a ring of square modes is cut: `cut` modes on the left, the products of both sides' sizes.
struct RingCut {
  std::size_t cut;
  std::int64_t left;
  std::int64_t right;
};

/// The cut with the fewest multiply-adds, which follow left + right.
RingCut cheapest_cut(const std::vector<std::int64_t>& sizes);

/// Cuts a ring of square modes where applying it is cheapest.
SplitRing split_ring(const std::vector<at::Tensor>& cores);

/// T x for vectors along the last axis of x [..., J]: two matrix products of widths I_L R^2 and
/// I_M; nothing larger than N J R^2 numbers is made.
at::Tensor apply_ring(const SplitRing& ring, const at::Tensor& x);

/// The whole matrix T [I, J]: for tests and reports.
at::Tensor ring_matrix(const SplitRing& ring);

}  // namespace ringlet::adapt
