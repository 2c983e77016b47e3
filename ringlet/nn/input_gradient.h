// The gradient of a frozen convolution's input, which needs nothing of the input but its shape.
#pragma once

#include <ATen/core/Tensor.h>

#include "ringlet/nn/layer_options.h"

namespace ringlet::nn {

/// dx of an input of this shape and layout from dy [B, out, h', w'] and the kernel [out, in, k, k]
/// in dy's type, by LibTorch's convolution_backward.
at::Tensor input_gradient(const at::Tensor& dy, const at::Tensor& weight, at::IntArrayRef shape,
                          at::MemoryFormat format, Conv2dOptions options);

}  // namespace ringlet::nn
