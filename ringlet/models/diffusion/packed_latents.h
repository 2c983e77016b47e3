// Latents as FLUX's tokens: each holds 2 x 2 of them.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace ringlet::models {

/// latents [B, C, h, w] -> [B, h/2 * w/2, 4 C], row after row. Throws Error(invalid_argument) for
/// odd sizes.
at::Tensor pack_latents(const at::Tensor& latents);

/// Back: [B, h/2 * w/2, 4 C] -> [B, C, h, w].
at::Tensor unpack_latents(const at::Tensor& packed, std::int64_t height, std::int64_t width);

/// Places of the tokens of latents h x w, for rotary positions: (0, row, column), fp32
/// [h/2 * w/2, 3]. Those of a text are (0, 0, 0).
at::Tensor packed_positions(std::int64_t height, std::int64_t width, c10::Device device);

}  // namespace ringlet::models
