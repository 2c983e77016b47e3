#include "ringlet/adapt/parts/boft.h"

#include <algorithm>

#include <ATen/ops/zeros.h>

#include "ringlet/adapt/parts/block_product.h"
#include "ringlet/adapt/parts/cayley.h"
#include "ringlet/core/error.h"
#include "ringlet/nn/gradient_checkpoint.h"

namespace ringlet::adapt {
namespace {

/// P^t x: each group of 2 * 2^i half blocks with its first and second half side by side.
at::Tensor brought_together(const at::Tensor& x, std::int64_t half_block, std::int64_t stride,
                            bool interleaved) {
  std::vector<std::int64_t> sizes = x.sizes().vec();
  if (interleaved) return x.view({-1, 2, stride * half_block}).transpose(1, 2).reshape(sizes);
  return x.view({-1, 2, stride, half_block}).transpose(1, 2).reshape(sizes);
}

/// P x.
at::Tensor taken_apart(const at::Tensor& x, std::int64_t half_block, std::int64_t stride,
                       bool interleaved) {
  std::vector<std::int64_t> sizes = x.sizes().vec();
  if (interleaved) return x.view({-1, stride * half_block, 2}).transpose(1, 2).reshape(sizes);
  return x.view({-1, stride, 2, half_block}).transpose(1, 2).reshape(sizes);
}

}  // namespace

Boft::Boft(std::int64_t width, const BoftOptions& options) : width_(width), options_(options) {
  constexpr std::int64_t kMostFactors = 30;
  const std::int64_t b = options.block, m = options.factors;
  if (m < 1 || m > kMostFactors || b < 2 || b % 2 != 0 || width % (b << (m - 1)) != 0)
    throw Error(ErrorCode::unsupported, "boft",
                std::to_string(m) + " factors of blocks of " + std::to_string(b) +
                    " do not exist for " + std::to_string(width) + " channels",
                "block * 2^(factors - 1) must divide the channels, and the block be even");
  blocks_ = at::zeros({m, width / b, b, b}).set_requires_grad(true);
}

at::Tensor Boft::apply(const at::Tensor& x, bool last_first, bool transposed) const {
  // The factors' inputs are computed again in the backward pass: m activations would be kept.
  return nn::recomputed(
      [this, last_first, transposed](const std::vector<at::Tensor>& inputs) {
        at::Tensor q = skew_part(blocks_, options_.half ? 0.5 : 1.0);
        if (options_.constraint > 0.0)
          q = limit_norm(q, options_.constraint * static_cast<double>(width_), false);
        const at::Tensor r = cayley(transposed ? -q : q);
        const std::int64_t half = options_.block / 2;
        at::Tensor y = inputs.front().contiguous();
        for (std::int64_t step = 0; step < options_.factors; ++step) {
          const std::int64_t i = last_first ? options_.factors - 1 - step : step;
          const std::int64_t stride = std::int64_t{1} << i;
          y = brought_together(y, half, stride, options_.interleaved);
          y = block_multiply(r[i], y);
          y = taken_apart(y, half, stride, options_.interleaved);
        }
        return y;
      },
      {x});
}

at::Tensor Boft::forward(const at::Tensor& x) const {
  // W0 meets factor 0 first: T = S_0 S_1 … on the input side, T = … S_1 S_0 on the output side.
  return apply(x, options_.side == Side::input, false);
}

at::Tensor Boft::right_multiply(const at::Tensor& w) const {
  // Rows times T are columns T^t.
  return apply(w, options_.side == Side::output, true);
}

double Boft::multiply_adds() const {
  constexpr std::int64_t kWide = 32;  // small blocks are multiplied together (block_product.cpp)
  return static_cast<double>(options_.factors * width_) *
         static_cast<double>(std::max(options_.block, std::min(kWide, width_)));
}

double Boft::written() const {
  return 4.0 * static_cast<double>(options_.factors) * static_cast<double>(width_);
}

}  // namespace ringlet::adapt
