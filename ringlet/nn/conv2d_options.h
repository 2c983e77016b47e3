// The options of a convolution, apart from its weight.
#pragma once

#include <cstdint>

namespace ringlet::nn {

struct Conv2dOptions {
  std::int64_t stride = 1;
  std::int64_t padding = 0;
};

}  // namespace ringlet::nn
