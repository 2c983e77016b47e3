// Tensor rings by alternating least squares: with all cores but one held, the best one is the
// solution of a small linear system (Zhao et al. 2016, "Tensor Ring Decomposition").
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

struct SweepResult {
  std::int64_t sweeps = 0;
  bool converged = false;
};

/// Improves a ring's cores, as TensorRing names and orders them: each core in turn becomes the best
/// one for the others. Ends when ten sweeps lower the squared error by less than the tolerance.
SweepResult sweep_tensor_ring(const Parameters& cores, const at::Tensor& difference,
                              std::int64_t most_sweeps, double tolerance);

/// A weight as the array that a chain of cores makes, [f_0, f_1, …] in the chain's order, padded
/// with zeros where the factors make more than a dimension.
at::Tensor modes_of(const at::Tensor& weight, const Parameters& cores);

/// For each core of a TensorRing the Gram matrix [R², R²] of the error with respect to each of its
/// slices, fp64.
std::vector<at::Tensor> ring_grams(const Parameters& cores);

/// rows T for a tensor-ring matrix T, cores [f, f, R, R] as TensorRingMatrix names and orders them,
/// as least squares in one core at a time.
class RingMatrixRows {
 public:
  /// rows [N, width], padded with zeros where the factors make more.
  RingMatrixRows(const Parameters& cores, const at::Tensor& rows);

  /// Whether rows are padded. Their products are then cut, so that sweeps would fit what is free.
  bool padded() const { return padded_; }

  /// Each core in turn becomes the best one for the others. `gap` [N, width] is what is wanted less
  /// rows T; returns it for the new cores. Unpadded rows only.
  at::Tensor sweep(const at::Tensor& gap);

  /// For each core the Gram matrix [f R², f R²] of the error with respect to each of its columns
  /// (its second axis), fp64.
  std::vector<at::Tensor> grams() const;

 private:
  std::vector<std::int64_t> grid_order(std::size_t d, bool mode_last) const;
  at::Tensor design(std::size_t d) const;

  std::vector<at::Tensor> cores_;
  at::Tensor rows_;  ///< [N, f_D, …, f_1]
  bool padded_ = false;
};

}  // namespace ringlet::adapt
