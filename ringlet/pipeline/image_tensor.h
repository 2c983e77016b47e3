// Images as the autoencoder sees them.
#pragma once

#include <ATen/core/Tensor.h>

#include "ringlet/io/image.h"

namespace ringlet::pipeline {

/// 8-bit RGB to [1, 3, h, w] in [-1, 1].
at::Tensor image_to_tensor(const io::Image& image);

/// [3, h, w] in [-1, 1] to 8-bit RGB, clamped, rounded to nearest even as diffusers does.
io::Image tensor_to_image(const at::Tensor& pixels);

}  // namespace ringlet::pipeline
