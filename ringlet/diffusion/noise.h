// Noise with one stream per image: the batch size never changes an image.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

namespace ringlet::diffusion {

/// Standard normal noise of the latents' shape [B, C, h, w] for draw number `draw`. A sampler's
/// draws are numbered by its steps, so that they do not depend on one another.
using NoiseSource = std::function<at::Tensor(std::int64_t draw)>;

/// A source whose row i depends on seeds[i], the stream name and the draw alone.
/// `shape` is that of one row, [C, h, w]. The numbers are made on `device`: nn::normal_numbers.
NoiseSource seeded_noise(std::vector<std::uint64_t> seeds, std::string_view name,
                         std::vector<std::int64_t> shape, at::Device device = at::kCPU);

}  // namespace ringlet::diffusion
