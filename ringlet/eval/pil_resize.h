// Resampling as the Python Imaging Library does it, which the published preprocessing of networks
// that measure pictures relies on.
#pragma once

#include <cstdint>
#include <vector>

#include "ringlet/io/image.h"

namespace ringlet::eval {

enum class PilFilter { bilinear, bicubic };

/// Image.resize of 8-bit pictures: filters widened when shrinking (no aliasing), horizontal before
/// vertical, both rounded to 8 bits, coefficients in 22-bit fixed point: equal to the byte.
io::Image pil_resize(const io::Image& image, std::int64_t width, std::int64_t height,
                     PilFilter filter);

/// The same for floating-point pictures, without any rounding or clipping: what clean-fid does with
/// every channel (Parmar et al. 2022). RGB, row by row, in the range of the picture's bytes.
std::vector<float> pil_resize_float(const io::Image& image, std::int64_t width, std::int64_t height,
                                    PilFilter filter);

}  // namespace ringlet::eval
