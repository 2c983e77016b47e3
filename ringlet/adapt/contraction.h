// How an adapter is computed for a shape and a number of tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

enum class Contraction {
  through_input,      ///< T x first, then the frozen weight, D beside it: right for few tokens
  transform_folded,   ///< W0 T once, then an ordinary layer, D beside it
  everything_folded,  ///< W0 T + D once, then an ordinary layer: right for many
};

/// The cheapest way by a cost model: multiply-adds at the speed of matrix products plus numbers
/// written at the speed of memory. `training` adds the backward pass, where folding pays for the
/// gradient of the whole weight. `residual` may be null. bench/contraction.cpp checks the choice
/// against measurements.
Contraction choose_contraction(std::span<const std::unique_ptr<Transform>> transforms,
                               const Residual* residual, const LayerShape& shape,
                               std::int64_t tokens, bool training);

}  // namespace ringlet::adapt
