#include "ringlet/adapt/parts/boft.h"

#include <algorithm>

#include <ATen/ops/zeros.h>

#include "ringlet/adapt/parts/block_product.h"
#include "ringlet/adapt/parts/cayley.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
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
  rotations_ = rotations(false);
  transposed_ = rotations(true);
}

Derived Boft::rotations(bool transposed) const {
  const double most = options_.constraint * static_cast<double>(width_);
  const double scale = options_.half ? 0.5 : 1.0;
  const std::string name =
      "boft " + exact_number(scale) + " " + exact_number(most) + (transposed ? " transposed" : "");
  return {name, {blocks_}, [most, scale, transposed](const Tensors& from) {
            const at::Tensor& blocks = from.front();  // [layers, m, n, b, b]
            at::Tensor q = skew_part(blocks, scale);
            if (most > 0.0) q = limit_norm(q.flatten(1, 2), most, false).view(blocks.sizes());
            const at::Tensor r = packed_blocks(cayley(transposed ? -q : q));
            Tensors factors;
            for (std::int64_t i = 0; i < r.size(1); ++i) factors.push_back(r.select(1, i));
            return factors;
          }};
}

at::Tensor Boft::apply(const at::Tensor& x, bool last_first, const Derived& rotations) const {
  // The factors' inputs are computed again in the backward pass: m activations would be kept.
  return nn::recomputed(
      [this, last_first, &rotations](const std::vector<at::Tensor>& inputs) {
        at::Tensor y = inputs.front().contiguous();
        const Tensors r = rotations.values(y.scalar_type());
        const std::int64_t half = options_.block / 2;
        for (std::int64_t step = 0; step < options_.factors; ++step) {
          const std::int64_t i = last_first ? options_.factors - 1 - step : step;
          const std::int64_t stride = std::int64_t{1} << i;
          y = brought_together(y, half, stride, options_.interleaved);
          y = block_multiply(r[static_cast<std::size_t>(i)].contiguous(), y);
          y = taken_apart(y, half, stride, options_.interleaved);
        }
        return y;
      },
      {x});
}

at::Tensor Boft::forward(const at::Tensor& x) const {
  // W0 meets factor 0 first: T = S_0 S_1 … on the input side, T = … S_1 S_0 on the output side.
  return apply(x, options_.side == Side::input, rotations_);
}

at::Tensor Boft::right_multiply(const at::Tensor& w) const {
  // Rows times T are columns T^t.
  return apply(w, options_.side == Side::output, transposed_);
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
