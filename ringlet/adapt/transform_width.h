// How many channels a transform mixes.
#pragma once

#include <cstdint>

#include "ringlet/adapt/method.h"
#include "ringlet/adapt/part.h"

namespace ringlet::adapt {

/// The rows of T on this shape: the output channels with side=output, whole patches with
/// over=patches, else the input channels. Options that the part does not have do not count.
std::int64_t transform_width(const PartSpec& part, const LayerShape& shape);

}  // namespace ringlet::adapt
