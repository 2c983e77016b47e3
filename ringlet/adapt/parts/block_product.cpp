#include "ringlet/adapt/parts/block_product.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/diag_embed.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

namespace ringlet::adapt {

at::Tensor packed_blocks(const at::Tensor& blocks) {
  constexpr std::int64_t kWide = 32;
  const std::int64_t count = blocks.size(-3), size = blocks.size(-1);
  std::int64_t together = 1;
  while (together * 2 * size <= kWide && count % (together * 2) == 0) together *= 2;
  if (together == 1) return blocks.contiguous();
  // […, n / t, t, b, t, b], zero but where the two t agree.
  const at::Tensor apart =
      blocks.unflatten(-3, {count / together, together}).movedim(-3, -1);  // […, n / t, b, b, t]
  return at::diag_embed(apart, 0, -4, -2).flatten(-2).flatten(-3, -2);
}

namespace {

/// x [N, n b] as [n, N, b].
at::Tensor by_block(const at::Tensor& x, std::int64_t size) {
  return x.view({x.size(0), -1, size}).transpose(0, 1);
}

/// Whether the products of the blocks are large enough for one call each, which lays nothing out
/// anew; on a device every call is a launch.
bool one_by_one(const at::Tensor& x, std::int64_t size) {
  constexpr std::int64_t kLarge = 1 << 20;
  return x.is_cpu() && x.size(0) * size * size >= kLarge;
}

/// y_k = B_k x_k, or B_k^t x_k; x [N, n b] with rows that lie together.
at::Tensor multiply(const at::Tensor& blocks, const at::Tensor& x, bool transposed) {
  const std::int64_t size = blocks.size(1);
  if (!one_by_one(x, size))
    return at::bmm(by_block(x, size), transposed ? blocks : blocks.transpose(1, 2))
        .transpose(0, 1)
        .reshape(x.sizes());
  at::Tensor y = at::empty_like(x);
  for (std::int64_t k = 0; k < blocks.size(0); ++k) {
    at::Tensor out = y.narrow(1, k * size, size);
    at::mm_out(out, x.narrow(1, k * size, size), transposed ? blocks[k] : blocks[k].t());
  }
  return y;
}

/// dB_k = dy_k^t x_k.
at::Tensor outer_products(const at::Tensor& blocks, const at::Tensor& dy, const at::Tensor& x) {
  const std::int64_t size = blocks.size(1);
  if (!one_by_one(x, size)) return at::bmm(by_block(dy, size).transpose(1, 2), by_block(x, size));
  at::Tensor products = at::empty_like(blocks);
  for (std::int64_t k = 0; k < blocks.size(0); ++k) {
    at::Tensor out = products[k];
    at::mm_out(out, dy.narrow(1, k * size, size).t(), x.narrow(1, k * size, size));
  }
  return products;
}

/// multiply() with its derivatives; a view of x is all that is kept.
struct BlockProduct : torch::autograd::Function<BlockProduct> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& blocks,
                            const at::Tensor& x) {
    context->save_for_backward({blocks, x});
    return multiply(blocks, x, false);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const at::NoGradGuard no_grad;
    const auto saved = context->get_saved_variables();
    const at::Tensor &blocks = saved[0], &x = saved[1];
    const at::Tensor dy = gradients.front().contiguous();
    at::Tensor dblocks, dx;
    if (context->needs_input_grad(0)) dblocks = outer_products(blocks, dy, x);
    if (context->needs_input_grad(1)) dx = multiply(blocks, dy, true);
    return {dblocks, dx};
  }
};

}  // namespace

at::Tensor block_multiply(const at::Tensor& blocks, const at::Tensor& x) {
  const at::Tensor rows = x.reshape({-1, x.size(-1)}).contiguous();
  return BlockProduct::apply(blocks, rows).view(x.sizes());
}

}  // namespace ringlet::adapt
