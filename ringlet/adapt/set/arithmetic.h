// Adapters put together and turned into other forms.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ringlet/adapt/set/adapter_set.h"

namespace ringlet::adapt {

/// How well a layer's change was kept.
struct LayerError {
  std::string name;  ///< full name of the layer
  std::int64_t rank;
  double relative;  ///< |D' - D| / |D|, Frobenius norms
};

struct Approximation {
  AdapterSet set;
  std::vector<LayerError> layers;
  double relative = 0.0;  ///< over all layers together
};

/// A fixed rank, or the smallest rank of each layer with at most this error.
struct LowRankGoal {
  std::int64_t rank = 0;
  double max_error = 0.0;
};

/// The nearest low rank (in the Frobenius norm; Eckart and Young 1936) to what the sets, at their
/// strengths, add to each layer's weight: a truncated singular value decomposition. Changes of
/// biases are kept as they are.
Approximation as_low_rank(std::span<const AdapterSet* const> sets, const LowRankGoal& goal);

/// What the sets add to each layer's weight, as it is.
AdapterSet as_difference(std::span<const AdapterSet* const> sets);

/// One set that computes exactly what the sets do together, at their strengths: low ranks side by
/// side, and tensor rings as rings of block-diagonal cores,
///     I + sum_k s_k (T_k - I) = sum_k s_k T_k + (1 - sum_k s_k) I,   D = sum_k s_k D_k
/// of rank sum_k R_k, and one more where an identity is left. Throws Error(unsupported) that names
/// the first layer whose methods have no such sum.
AdapterSet combine(std::span<const AdapterSet* const> sets);

}  // namespace ringlet::adapt
