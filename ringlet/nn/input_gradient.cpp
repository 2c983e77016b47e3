#include "ringlet/nn/input_gradient.h"

#include <array>
#include <optional>

#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>

namespace ringlet::nn {

at::Tensor input_gradient(const at::Tensor& dy, const at::Tensor& weight, at::IntArrayRef shape,
                          at::MemoryFormat format, Conv2dOptions options) {
  constexpr std::array<std::int64_t, 2> kNoDilation = {1, 1}, kNoOutputPadding = {0, 0};
  // Not an expanded number, which LibTorch would make contiguous: this memory is never touched.
  const at::Tensor stand_in = at::empty(shape, dy.options(), format);
  const auto result = at::convolution_backward(
      dy, stand_in, weight, std::nullopt, std::array{options.stride, options.stride},
      std::array{options.padding, options.padding}, kNoDilation,
      /*transposed=*/false, kNoOutputPadding, /*groups=*/1, {true, false, false});
  return std::get<0>(result);
}

}  // namespace ringlet::nn
