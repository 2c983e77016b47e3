// How an adapter is computed for a shape and a number of tokens.
#pragma once

#include <cstdint>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

enum class Way {
  through_input,       ///< T x first, then the frozen weight: right for few tokens
  folded_into_weight,  ///< W0 T once, then an ordinary layer: right for many
};

/// The cheaper way by a cost model: multiply-adds at the speed of matrix products plus numbers
/// written at the speed of memory. `training` adds the backward pass, where folding pays for the
/// gradient of the whole weight. bench/contraction.cpp checks the choice against measurements.
Way choose_way(const Transform& transform, const LayerShape& shape, std::int64_t tokens,
               bool training);

}  // namespace ringlet::adapt
