#include "ringlet/diffusion/noise.h"

#include <string>
#include <utility>

#include <c10/util/accumulate.h>

#include "ringlet/core/random.h"
#include "ringlet/nn/random_tensor.h"

namespace ringlet::diffusion {

NoiseSource seeded_noise(std::vector<std::uint64_t> seeds, std::string_view name,
                         std::vector<std::int64_t> shape, at::Device device) {
  return [seeds = std::move(seeds), name = std::string(name), shape = std::move(shape),
          device](std::int64_t draw) {
    std::vector<RandomStream> streams;
    for (const std::uint64_t seed : seeds)
      streams.push_back(Random(seed).stream(name, static_cast<std::uint64_t>(draw)));
    std::vector<std::int64_t> sizes = {static_cast<std::int64_t>(seeds.size())};
    sizes.insert(sizes.end(), shape.begin(), shape.end());
    return nn::normal_numbers(streams, c10::multiply_integers(shape), device).reshape(sizes);
  };
}

}  // namespace ringlet::diffusion
