// Tensor-ring algebra: the equations of the TRM and the TR, each in one place.
//
// Multi-indices are little-endian: i = i1 + i2*I1 + i3*I1*I2 + … A ring's cores are matrices over
// the rank axes; closing the ring is a trace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/derived.h"

namespace ringlet::adapt {

/// C1[i1] C2[i2] … with an axis for each mode: cores […, I_d, A_d, A_d+1] ->
/// […, i_D, …, i_1, a, c], a view of products that were never laid out anew. The axes before are of
/// rings that are computed together, here and below.
at::Tensor chain_grid(const std::vector<at::Tensor>& cores);

/// P[i] = C1[i1] C2[i2] … : cores […, I_d, R, R] -> […, I, R, R].
at::Tensor chain_of_vectors(const std::vector<at::Tensor>& cores);

/// P[i, j] = A1[i1, j1] A2[i2, j2] … : cores […, I_d, J_d, R, R] -> […, I, J, R, R].
at::Tensor chain_of_matrices(const std::vector<at::Tensor>& cores);

/// The factor of a low rank that a chain of vectors gives: [(a, b), size(, p)] of C1[i1] C2[i2] …
/// [a, b], or [b, a] when `turned`. A core of a convolution's kernel positions p, by its place
/// among the cores, is no mode of `size`. Indices from `size` on are padding.
Derived chain_factor(const std::vector<at::Tensor>& cores, std::int64_t size, bool turned,
                     std::optional<std::size_t> positions = std::nullopt);

/// The first `size` entries along an axis: x itself where it has no more.
at::Tensor first_entries(const at::Tensor& x, std::int64_t axis, std::int64_t size);

/// x with its last axes in another order: axis k of them is the old one order[k].
at::Tensor last_axes(const at::Tensor& x, const std::vector<std::int64_t>& order);

/// Where a ring of square modes is cut: `cut` modes on the left, the products of both sides' sizes.
struct RingCut {
  std::size_t cut;
  std::int64_t left;
  std::int64_t right;
};

/// The cut with the fewest multiply-adds, which follow left + right.
RingCut cheapest_cut(const std::vector<std::int64_t>& sizes);

/// A closed ring of square matrices, T = sum_ab L_ab (x) M_ba with L [I_L, J_L] over the modes
/// before a cut and M [I_M, J_M] over the others, as the products of apply_ring want it.
struct RingFactors {
  at::Tensor left;   ///< […, I_L, (a, b, J_L)]
  at::Tensor right;  ///< […, (I_M, a, b), J_M]
};

/// The factors of T, or of T transposed, cut where applying them is cheapest.
RingFactors ring_factors(const std::vector<at::Tensor>& cores, bool transposed = false);

/// T x for vectors along the last axis of x [..., J] and one ring's factors: two matrix products of
/// widths I_L R^2 and I_M; nothing larger than N J R^2 numbers is made.
at::Tensor apply_ring(const RingFactors& ring, const at::Tensor& x);

/// The whole matrix T […, I, J].
at::Tensor ring_matrix(const std::vector<at::Tensor>& cores);

}  // namespace ringlet::adapt
