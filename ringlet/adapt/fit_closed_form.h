// Parts whose best parameters for a difference of weights have a formula, or nearly one.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// left right, with the singular values shared between both.
struct LowRankProduct {
  at::Tensor left;   ///< [rows, rank]
  at::Tensor right;  ///< [rank, columns]
};

/// The best approximation of a matrix (Eckart and Young 1936); ranks beyond the matrix's are zero.
LowRankProduct best_low_rank(const at::Tensor& matrix, std::int64_t rank);

/// The same, as a matrix, for a sequence of matrices that change little: subspace iteration from
/// the one before (Halko, Martinsson and Tropp 2011), a few products where best_low_rank needs all
/// singular values.
class LowRankTracker {
 public:
  LowRankTracker(std::int64_t rank, std::uint64_t seed) : rank_(rank), seed_(seed) {}
  at::Tensor approximate(const at::Tensor& matrix);

 private:
  std::int64_t rank_;
  std::uint64_t seed_;
  at::Tensor basis_;  ///< [columns, some more than rank]
};

/// Sets a train's cores, as TensorTrain names and orders them, by TT-SVD (Oseledets 2011): at most
/// sqrt(cores - 1) times the smallest error possible.
void set_tensor_train(const Parameters& cores, const at::Tensor& difference);

struct SweepResult {
  std::int64_t sweeps = 0;
  bool converged = false;
};

/// Improves a ring's cores, as TensorRing names and orders them, by alternating least squares (Zhao
/// et al. 2016, "Tensor Ring Decomposition"): each core in turn becomes the best one for the
/// others. Ends when ten sweeps lower the squared error by less than the tolerance.
SweepResult sweep_tensor_ring(const Parameters& cores, const at::Tensor& difference,
                              std::int64_t most_sweeps, double tolerance);

/// The factors of the rows (Side::output) or columns of `w0` that bring it nearest to `wanted`; 1
/// for those that are zero.
at::Tensor best_scales(const at::Tensor& w0, const at::Tensor& wanted, Side side);

}  // namespace ringlet::adapt
