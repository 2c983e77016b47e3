// The processor's own products of small matrices. One call of a library's product costs some
// microseconds, which is as long as a product of a few cores takes.
#pragma once

#include <cstdint>

#include "ringlet/nn/strided.h"

namespace ringlet::nn {

/// The functions for one instruction set. They start no threads and allocate nothing, and add in
/// one fixed order.
struct SmallProducts {
  /// Vectors that a tile holds side by side.
  static constexpr std::int64_t kLanes = 16;

  const char* name;  ///< of the instruction set, for tests
  void (*product)(const Product&);
  void (*dot_products)(const DotProducts&);
  /// tile [padded, kLanes] of `count` rows of x, `width` numbers each that are `stride` apart from
  /// row to row; zeros elsewhere.
  void (*load_tile)(const float* x, std::int64_t stride, std::int64_t count, std::int64_t width,
                    std::int64_t padded, float* tile);
  /// The first `width` rows of a tile back to `count` rows of y.
  void (*store_tile)(const float* tile, std::int64_t stride, std::int64_t count, std::int64_t width,
                     float* y);
};

/// Those for the widest instructions of this processor.
const SmallProducts& small_products();

/// Those that every processor has; the others are tested against them.
const SmallProducts& portable_small_products();

}  // namespace ringlet::nn
