// Images as the autoencoder sees them.
#pragma once

#include <ATen/core/Tensor.h>

#include "ringlet/io/image.h"

namespace ringlet::pipeline {

/// 8-bit RGB to [1, 3, h, w] in [-1, 1].
at::Tensor image_to_tensor(const io::Image& image);

/// Its two steps: to bytes [1, 3, h, w], and bytes [B, 3, h, w] to numbers in [-1, 1], on the
/// device of the bytes.
at::Tensor image_bytes(const io::Image& image);
at::Tensor pixels_of_bytes(const at::Tensor& bytes);

/// [3, h, w] in [-1, 1] to 8-bit RGB, clamped, rounded to nearest even as diffusers does.
io::Image tensor_to_image(const at::Tensor& pixels);

}  // namespace ringlet::pipeline
