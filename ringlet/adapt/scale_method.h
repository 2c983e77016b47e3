// Sizes of a method's parts from a number of parameters, the method's other options kept.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "ringlet/adapt/factors.h"
#include "ringlet/adapt/method.h"
#include "ringlet/adapt/targets.h"

namespace ringlet::adapt {

struct ScaledMethod {
  Method method;
  std::int64_t parameters = 0;  ///< on all targets
};

/// Gives a part with a `rank`, `block` or `n` another one; other parts stay as they are. Where
/// alpha is the rank it follows.
void set_size(PartSpec& part, std::int64_t size);

/// The method of this text with one part made as large as the budget allows: the residual, or
/// without one the last transform that has a size. What grows is its `rank`, `block` or `n`; other
/// options stay as they are, and so do other parts, but that a transform whose rank the text does
/// not name gets rank 1 where 2 does not fit. A size that a layer cannot have (odd blocks, uneven
/// ranks) is passed over for the next smaller one; a method without sizes comes back as it is. A
/// budget above the layers' own number of weights counts as that number.
/// Throws Error(invalid_argument) when the smallest size does not fit, and as parse_method.
ScaledMethod scale_to_budget(std::string_view text, std::int64_t budget,
                             std::span<const Target> targets, FactorTable factors);

}  // namespace ringlet::adapt
