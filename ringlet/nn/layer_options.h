// What a frozen layer is made and prepared with, apart from its weight.
#pragma once

#include <cstdint>

namespace ringlet::nn {

struct Conv2dOptions {
  std::int64_t stride = 1;
  std::int64_t padding = 0;
};

/// What a frozen weight is laid out for.
enum class WeightUse {
  inference,  ///< forward passes, in the fastest layout
  training,   ///< both passes, with the weight in memory once
  narrow,     ///< the same in the type that it is stored in: widened in every pass
  streamed,   ///< the least memory: read from its file in every pass, and out of memory after it
};

}  // namespace ringlet::nn
