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
  at::Tensor basis_;  ///< [some more than rank, columns]
};

/// Sets a train's cores, as TensorTrain names and orders them, by TT-SVD (Oseledets 2011): at most
/// sqrt(cores - 1) times the smallest error possible.
void set_tensor_train(const Parameters& cores, const at::Tensor& difference);

/// The factors of the rows (Side::output) or columns of `w0` that bring it nearest to `wanted`; 1
/// for those that are zero.
at::Tensor best_scales(const at::Tensor& w0, const at::Tensor& wanted, Side side);

struct ScaledLowRankOptions {
  std::int64_t most_turns = 1000;
  double tolerance = 1e-3;  ///< as Turns takes it
  std::uint64_t seed = 0;
};

struct ScaledLowRank {
  at::Tensor change;  ///< C, of the weight's shape
  std::int64_t turns = 0;
  bool converged = false;
};

/// C of this rank with diag(g) (W0 + C) near `wanted`, g free for each row (Side::output) or
/// column. diag(g) C is any low rank beside diag(g) W0, so that g and it have closed forms for each
/// other; they become the best ones in turns.
ScaledLowRank best_scaled_low_rank(const at::Tensor& w0, const at::Tensor& wanted, Side side,
                                   std::int64_t rank, const ScaledLowRankOptions& options);

}  // namespace ringlet::adapt
