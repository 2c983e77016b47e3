#include "ringlet/adapt/parts/ring.h"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ringlet/adapt/part.h"

namespace ringlet::adapt {
namespace {

/// x [N, jM, jL] cut so that what a product makes from a piece stays in a processor's cache.
std::int64_t piece_length(const at::Tensor& x, std::int64_t expansion) {
  constexpr std::int64_t kCached = 1 << 18, kLarge = 1 << 26;
  const std::int64_t most = x.is_cpu() ? kCached : kLarge;
  return std::max<std::int64_t>(1, most / std::max<std::int64_t>(1, expansion));
}

/// z[n, (iM, a, b), jL] = sum_jM M'[(iM, a, b), jM] x[n, jM, jL]
at::Tensor widened(const at::Tensor& right, const at::Tensor& x) {
  return at::bmm(right.expand({x.size(0), -1, -1}), x);
}

/// y[n, iM, iL] = sum_(a, b, jL) z[n, iM, (a, b, jL)] L'[iL, (a, b, jL)] with z as above; x
/// [N, jM, jL]. No array is ever laid out anew.
at::Tensor ring_product(const at::Tensor& x, const at::Tensor& left, const at::Tensor& right) {
  const std::int64_t tokens = x.size(0), width = left.size(1);
  const std::int64_t i_left = left.size(0), i_right = right.size(0) * x.size(2) / width;
  const std::int64_t length = piece_length(x, i_right * width);
  const auto piece = [&](const at::Tensor& some) {
    return matrix_product(widened(right, some).view({-1, width}), left).view({-1, i_right, i_left});
  };
  if (tokens <= length) return piece(x);
  at::Tensor y = at::empty({tokens, i_right, i_left}, x.options());
  for (std::int64_t first = 0; first < tokens; first += length) {
    const std::int64_t count = std::min(length, tokens - first);
    y.narrow(0, first, count).copy_(piece(x.narrow(0, first, count)));
  }
  return y;
}

/// [n, m, l] -> [m, (n, l)]
at::Tensor modes_first(const at::Tensor& x) { return x.transpose(0, 1).flatten(1); }

/// ring_product with its derivatives. z is made again in the backward pass, which costs one part
/// in left + right of the modes' sizes and keeps nothing but x.
struct RingProduct : torch::autograd::Function<RingProduct> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& left, const at::Tensor& right) {
    context->save_for_backward({x, left, right});
    return ring_product(x, left, right);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const at::NoGradGuard no_grad;
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &left = saved[1], &right = saved[2];
    const at::Tensor dy = gradients.front().contiguous();
    const std::int64_t tokens = x.size(0), width = left.size(1), i_left = left.size(0);
    const std::int64_t length = piece_length(x, dy.size(1) * width);
    const bool of_x = context->needs_input_grad(0), of_left = context->needs_input_grad(1),
               of_right = context->needs_input_grad(2);
    // Sums over tokens in fp32 at least.
    const at::ScalarType sum = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor dx = of_x ? at::empty_like(x) : at::Tensor();
    const at::Tensor dleft =
        of_left ? at::zeros(left.sizes(), x.options().dtype(sum)) : at::Tensor();
    const at::Tensor dright =
        of_right ? at::zeros(right.sizes(), x.options().dtype(sum)) : at::Tensor();
    for (std::int64_t first = 0; first < tokens; first += length) {
      const std::int64_t count = std::min(length, tokens - first);
      const at::Tensor x_here = x.narrow(0, first, count);
      const at::Tensor dy_here = dy.narrow(0, first, count).view({-1, i_left});
      if (of_left)
        dleft.add_(matrix_product(dy_here.t(), widened(right, x_here).view({-1, width}).t()));
      if (!of_x && !of_right) continue;
      // dz[(iM, a, b), (n, jL)]: laid out anew, which makes one wide product of many small ones
      const at::Tensor dz =
          modes_first(matrix_product(dy_here, left.t()).view({count, right.size(0), x.size(2)}));
      if (of_right) dright.add_(matrix_product(dz, modes_first(x_here)));
      if (of_x)
        dx.narrow(0, first, count)
            .copy_(matrix_product(right.t(), dz.t()).view({-1, count, x.size(2)}).transpose(0, 1));
    }
    return {dx, of_left ? dleft.to(x.scalar_type()) : dleft,
            of_right ? dright.to(x.scalar_type()) : dright};
  }
};

}  // namespace

at::Tensor chain_of_vectors(const std::vector<at::Tensor>& cores) {
  at::Tensor chain = cores.front();
  for (std::size_t d = 1; d < cores.size(); ++d)  // the new index is the slower one
    chain = at::einsum("iab,kbc->kiac", {chain, cores[d]}).flatten(0, 1);
  return chain;
}

at::Tensor chain_of_matrices(const std::vector<at::Tensor>& cores) {
  at::Tensor chain = cores.front();
  for (std::size_t d = 1; d < cores.size(); ++d)
    chain = at::einsum("ijab,klbc->kiljac", {chain, cores[d]}).flatten(2, 3).flatten(0, 1);
  return chain;
}

SplitRing SplitRing::transposed() const { return {left.transpose(0, 1), right.transpose(0, 1)}; }

RingCut cheapest_cut(const std::vector<std::int64_t>& sizes) {
  std::int64_t total = 1;
  for (const std::int64_t size : sizes) total *= size;
  RingCut best = {sizes.size(), total, 1};  // a single mode has nothing on the right
  std::int64_t left = 1;
  for (std::size_t d = 1; d < sizes.size(); ++d) {
    left *= sizes[d - 1];
    if (left + total / left < best.left + best.right || best.cut == sizes.size())
      best = {d, left, total / left};
  }
  return best;
}

SplitRing split_ring(const std::vector<at::Tensor>& cores) {
  if (cores.size() == 1) {
    const std::int64_t rank = cores.front().size(2);
    const auto options = cores.front().options().requires_grad(false);
    return {cores.front(), at::eye(rank, options).view({1, 1, rank, rank})};
  }
  std::vector<std::int64_t> sizes;
  sizes.reserve(cores.size());
  for (const at::Tensor& core : cores) sizes.push_back(core.size(1));
  const auto at_cut = cores.begin() + static_cast<std::ptrdiff_t>(cheapest_cut(sizes).cut);
  return {chain_of_matrices({cores.begin(), at_cut}), chain_of_matrices({at_cut, cores.end()})};
}

at::Tensor apply_ring(const SplitRing& ring, const at::Tensor& x) {
  // The two factors as the products of RingProduct want them: M' [(iM, a, b), jM] and
  // L' [iL, (a, b, jL)].
  const at::Tensor right = ring.right.permute({0, 3, 2, 1}).flatten(0, 2).contiguous();
  const at::Tensor left = ring.left.permute({0, 2, 3, 1}).flatten(1).contiguous();
  const at::Tensor grid = x.reshape({-1, ring.right.size(1), ring.left.size(1)});
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = ring.left.size(0) * ring.right.size(0);
  return c10::GradMode::is_enabled() ? RingProduct::apply(grid, left, right).view(shape)
                                     : ring_product(grid, left, right).view(shape);
}

at::Tensor ring_matrix(const SplitRing& ring) {
  // sum_ab L_ab ⊗ M_ba, M's modes the slower ones
  return at::einsum("ijab,klba->kilj", {ring.left, ring.right})
      .reshape({ring.left.size(0) * ring.right.size(0), -1});
}

}  // namespace ringlet::adapt
