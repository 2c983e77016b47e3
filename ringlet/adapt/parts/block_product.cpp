#include "ringlet/adapt/parts/block_product.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/diag_embed.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

namespace ringlet::adapt {
namespace {

/// Several small blocks as one: products of width 2 or 4 would spend their time on starting.
at::Tensor packed(const at::Tensor& blocks) {
  constexpr std::int64_t kWide = 32;
  const std::int64_t count = blocks.size(0), size = blocks.size(1);
  std::int64_t together = 1;
  while (together * 2 * size <= kWide && count % (together * 2) == 0) together *= 2;
  if (together == 1) return blocks;
  // [n / t, t, b, t, b], zero but where the two t agree.
  const at::Tensor apart = blocks.reshape({count / together, together, size, size});
  return at::diag_embed(apart.permute({0, 2, 3, 1}), 0, 1, 3)
      .reshape({count / together, together * size, together * size});
}

/// y_k = B_k x_k, or B_k^t x_k; x [N, n b] with rows that lie together.
at::Tensor multiply(const at::Tensor& blocks, const at::Tensor& x, bool transposed) {
  const std::int64_t size = blocks.size(1);
  at::Tensor y = at::empty_like(x);
  for (std::int64_t k = 0; k < blocks.size(0); ++k) {
    at::Tensor out = y.narrow(1, k * size, size);
    at::mm_out(out, x.narrow(1, k * size, size), transposed ? blocks[k] : blocks[k].t());
  }
  return y;
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
    const std::int64_t size = blocks.size(1);
    at::Tensor dblocks, dx;
    if (context->needs_input_grad(0)) {
      dblocks = at::empty_like(blocks);
      for (std::int64_t k = 0; k < blocks.size(0); ++k) {
        at::Tensor out = dblocks[k];
        at::mm_out(out, dy.narrow(1, k * size, size).t(), x.narrow(1, k * size, size));
      }
    }
    if (context->needs_input_grad(1)) dx = multiply(blocks, dy, true);
    return {dblocks, dx};
  }
};

}  // namespace

at::Tensor block_multiply(const at::Tensor& blocks, const at::Tensor& x) {
  const at::Tensor wide = packed(blocks).to(x.scalar_type()).contiguous();
  const at::Tensor rows = x.reshape({-1, x.size(-1)}).contiguous();
  return BlockProduct::apply(wide, rows).view(x.sizes());
}

}  // namespace ringlet::adapt
