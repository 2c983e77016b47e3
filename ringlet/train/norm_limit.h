// A largest norm for low-rank residuals: kohya's scale_weight_norms (max norm regularisation).
#pragma once

#include <cstdint>

#include "ringlet/adapt/set/adapter_set.h"

namespace ringlet::train {

/// Brings every residual of two matrices whose whole change, alpha / rank * up * down, has a
/// Frobenius norm above `most` back to that norm: both matrices by the root of most / norm, as
/// kohya's trainer does it. Other parts, and residuals that do not start at zero, stay as they are.
void limit_norms(const adapt::AdapterSet& adapters, double most);

/// How many residuals limit_norms sees.
std::int64_t limited_residuals(const adapt::AdapterSet& adapters);

}  // namespace ringlet::train
