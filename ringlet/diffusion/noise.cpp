#include "ringlet/diffusion/noise.h"

#include <string>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>

#include "ringlet/core/random.h"

namespace ringlet::diffusion {

NoiseSource seeded_noise(std::vector<std::uint64_t> seeds, std::string_view name,
                         std::vector<std::int64_t> shape, at::Device device) {
  return [seeds = std::move(seeds), name = std::string(name), shape = std::move(shape),
          device](std::int64_t draw) {
    std::vector<at::Tensor> rows;
    for (const std::uint64_t seed : seeds) {
      at::Tensor row = at::empty(shape, at::kFloat);
      Random(seed)
          .stream(name, static_cast<std::uint64_t>(draw))
          .fill_normal({row.data_ptr<float>(), static_cast<std::size_t>(row.numel())});
      rows.push_back(std::move(row));
    }
    return at::stack(rows).to(device);
  };
}

}  // namespace ringlet::diffusion
