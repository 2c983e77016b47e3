// Overlapping tiles for images that are too large to encode or decode at once.
#pragma once

#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

namespace ringlet::models {

/// Applies `code` to tiles of x [B, C, h, w] and blends them linearly over a quarter of a tile.
/// A tile has side `tile` >= `down`; `code` multiplies sides by `up` and divides them by `down`,
/// one of which is 1. The result has the size of code(x); an x that fits into one tile is coded
/// whole.
at::Tensor tiled(const at::Tensor& x, std::int64_t tile, std::int64_t up, std::int64_t down,
                 const std::function<at::Tensor(const at::Tensor&)>& code);

}  // namespace ringlet::models
