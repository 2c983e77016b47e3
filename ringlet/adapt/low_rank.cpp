#include "ringlet/adapt/low_rank.h"

#include <cmath>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/error.h"

namespace ringlet::adapt {

LowRank::LowRank(const LayerShape& shape, std::int64_t rank, double alpha, RandomStream random)
    : scale_(alpha / static_cast<double>(rank)) {
  if (rank < 1) throw Error(ErrorCode::invalid_argument, "lora", "the rank must be at least 1");
  std::vector<std::int64_t> size = {rank, shape.in};
  if (shape.convolution) size.insert(size.end(), {shape.kernel_height, shape.kernel_width});
  down_ = at::empty(size, at::kFloat);
  random.fill_uniform({down_.data_ptr<float>(), static_cast<std::size_t>(down_.numel())});
  const double bound = 1.0 / std::sqrt(static_cast<double>(shape.in * shape.positions()));
  down_.mul_(2.0 * bound).sub_(bound).set_requires_grad(true);
  up_ = at::zeros({shape.out, rank}).set_requires_grad(true);
}

}  // namespace ringlet::adapt
