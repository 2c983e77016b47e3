#include "ringlet/adapt/parts/ring.h"

#include <algorithm>
#include <string>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/matmul.h>
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
    at::Tensor dx, dleft, dright;
    for (std::int64_t first = 0; first < tokens; first += length) {
      const std::int64_t count = std::min(length, tokens - first);
      const at::Tensor x_here = x.narrow(0, first, count);
      const at::Tensor dy_here = dy.narrow(0, first, count).view({-1, i_left});
      if (of_left)
        add(dleft, matrix_product(dy_here.t(), widened(right, x_here).view({-1, width}).t()));
      if (!of_x && !of_right) continue;
      // dz[(iM, a, b), (n, jL)]: laid out anew, which makes one wide product of many small ones
      const at::Tensor dz =
          modes_first(matrix_product(dy_here, left.t()).view({count, right.size(0), x.size(2)}));
      if (of_right) add(dright, matrix_product(dz, modes_first(x_here)));
      if (!of_x) continue;
      const at::Tensor part =
          matrix_product(right.t(), dz.t()).view({-1, count, x.size(2)}).transpose(0, 1);
      if (count == tokens) {
        dx = part;
      } else {
        if (!dx.defined()) dx = at::empty_like(x);
        dx.narrow(0, first, count).copy_(part);
      }
    }
    return {dx, dleft.defined() ? dleft.to(x.scalar_type()) : dleft,
            dright.defined() ? dright.to(x.scalar_type()) : dright};
  }

 private:
  /// sum += term over pieces, in fp32 at least.
  static void add(at::Tensor& sum, const at::Tensor& term) {
    if (!sum.defined()) {
      sum = term;
      return;
    }
    if (sum.scalar_type() != at::kDouble) sum = sum.to(at::kFloat);
    sum.add_(term);
  }
};

}  // namespace

at::Tensor last_axes(const at::Tensor& x, const std::vector<std::int64_t>& order) {
  std::vector<std::int64_t> all;
  const std::int64_t before = x.dim() - static_cast<std::int64_t>(order.size());
  for (std::int64_t axis = 0; axis < before; ++axis) all.push_back(axis);
  for (const std::int64_t axis : order) all.push_back(before + axis);
  return x.permute(all);
}

at::Tensor first_entries(const at::Tensor& x, std::int64_t axis, std::int64_t size) {
  // Cutting nothing off would be two more arrays in the backward pass.
  return x.size(axis) == size ? x : x.narrow(axis, 0, size).contiguous();
}

at::Tensor chain_grid(const std::vector<at::Tensor>& cores) {
  // […, (i1, a, i2, …), b]: the new index is the faster one, which a product gives as it is.
  at::Tensor chain = cores.front().flatten(-3, -2);
  std::vector<std::int64_t> sizes = {cores.front().size(-3), cores.front().size(-2)};
  for (std::size_t d = 1; d < cores.size(); ++d) {
    const at::Tensor& core = cores[d];
    chain = at::matmul(chain, core.transpose(-3, -2).flatten(-2))
                .unflatten(-1, {core.size(-3), core.size(-1)})
                .flatten(-3, -2);
    sizes.push_back(core.size(-3));
  }
  const auto modes = static_cast<std::int64_t>(cores.size());
  std::vector<std::int64_t> order;
  for (std::int64_t d = modes; d >= 2; --d) order.push_back(d);
  order.insert(order.end(), {0, 1, modes + 1});
  return last_axes(chain.unflatten(-2, sizes), order);
}

namespace {

/// chain_grid of matrices: […, i_D, …, i_1, j_D, …, j_1, a, c].
at::Tensor matrix_grid(const std::vector<at::Tensor>& cores) {
  std::vector<at::Tensor> vectors;
  vectors.reserve(cores.size());
  for (const at::Tensor& core : cores) vectors.push_back(core.flatten(-4, -3));
  at::Tensor grid = chain_grid(vectors);
  std::vector<std::int64_t> rows, columns;
  const auto modes = static_cast<std::int64_t>(cores.size());
  for (std::int64_t d = 0; d < modes; ++d) {  // from the fastest, each at its place from the end
    const at::Tensor& core = cores[static_cast<std::size_t>(d)];
    grid = grid.unflatten(-3 - 2 * d, {core.size(-4), core.size(-3)});
    rows.push_back(2 * d);
    columns.push_back(2 * d + 1);
  }
  rows.insert(rows.end(), columns.begin(), columns.end());
  rows.insert(rows.end(), {2 * modes, 2 * modes + 1});
  return last_axes(grid, rows);
}

/// The axes of a matrix_grid in another order: rows (or columns when `transposed`), `middle`, then
/// the other ones.
std::vector<std::int64_t> grid_order(std::size_t cores, bool transposed,
                                     const std::vector<std::int64_t>& middle) {
  const auto modes = static_cast<std::int64_t>(cores);
  std::vector<std::int64_t> order;
  for (std::int64_t d = 0; d < modes; ++d) order.push_back(transposed ? modes + d : d);
  for (const std::int64_t axis : middle) order.push_back(2 * modes + axis);
  for (std::int64_t d = 0; d < modes; ++d) order.push_back(transposed ? d : modes + d);
  return order;
}

std::size_t cut_of(const std::vector<at::Tensor>& cores) {
  std::vector<std::int64_t> sizes;
  sizes.reserve(cores.size());
  for (const at::Tensor& core : cores) sizes.push_back(core.size(-3));
  return cheapest_cut(sizes).cut;
}

}  // namespace

at::Tensor chain_of_vectors(const std::vector<at::Tensor>& cores) {
  return chain_grid(cores).flatten(-2 - static_cast<std::int64_t>(cores.size()), -3);
}

Derived chain_factor(const std::vector<at::Tensor>& cores, std::int64_t size, bool turned,
                     std::optional<std::size_t> positions) {
  const auto all = static_cast<std::int64_t>(cores.size());
  // The grid begins with the slowest mode, the last core.
  const std::int64_t apart = positions ? all - 1 - static_cast<std::int64_t>(*positions) : -1;
  const std::int64_t modes = positions ? all - 1 : all;
  std::vector<std::int64_t> order = {all + (turned ? 1 : 0), all + (turned ? 0 : 1)};
  for (std::int64_t axis = 0; axis < all; ++axis)
    if (axis != apart) order.push_back(axis);
  if (positions) order.push_back(apart);
  const std::string name =
      "chain " + std::to_string(size) + " " + std::to_string(apart) + (turned ? " turned" : "");
  return {name, cores, [order, modes, size](const Tensors& from) -> Tensors {
            const at::Tensor grid = last_axes(chain_grid(from), order).flatten(1, 2);
            return {first_entries(grid.flatten(2, 1 + modes), 2, size)};
          }};
}

at::Tensor chain_of_matrices(const std::vector<at::Tensor>& cores) {
  const auto modes = static_cast<std::int64_t>(cores.size());
  return matrix_grid(cores).flatten(-2 - modes, -3).flatten(-3 - modes, -4);
}

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

RingFactors ring_factors(const std::vector<at::Tensor>& cores, bool transposed) {
  const auto at_cut = cores.begin() + static_cast<std::ptrdiff_t>(cut_of(cores));
  const std::vector<at::Tensor> before(cores.begin(), at_cut), after(at_cut, cores.end());
  const auto m = static_cast<std::int64_t>(before.size());
  const at::Tensor left =
      last_axes(matrix_grid(before), grid_order(before.size(), transposed, {0, 1}))
          .flatten(-m - 2)
          .flatten(-m - 1, -2);
  const std::int64_t rank = cores.front().size(-2);
  if (after.empty()) {  // nothing on the right: M_ba = delta_ab
    std::vector<std::int64_t> shape(static_cast<std::size_t>(left.dim()) - 2, -1);
    shape.insert(shape.end(), {rank * rank, 1});
    const at::Tensor one = at::eye(rank, cores.front().options().requires_grad(false));
    for (std::size_t d = 0; d + 2 < shape.size(); ++d)
      shape[d] = left.size(static_cast<std::int64_t>(d));
    return {left, one.view({-1, 1}).expand(shape)};
  }
  const auto k = static_cast<std::int64_t>(after.size());
  return {left, last_axes(matrix_grid(after), grid_order(after.size(), transposed, {1, 0}))
                    .flatten(-k)
                    .flatten(-k - 3, -2)};
}

at::Tensor apply_ring(const RingFactors& ring, const at::Tensor& x) {
  const std::int64_t j_right = ring.right.size(1);
  const at::Tensor grid = x.reshape({-1, j_right, x.size(-1) / j_right});
  std::vector<std::int64_t> shape = x.sizes().vec();
  const at::Tensor y = c10::GradMode::is_enabled() ? RingProduct::apply(grid, ring.left, ring.right)
                                                   : ring_product(grid, ring.left, ring.right);
  shape.back() = y.size(1) * y.size(2);
  return y.view(shape);
}

at::Tensor ring_matrix(const std::vector<at::Tensor>& cores) {
  const auto at_cut = cores.begin() + static_cast<std::ptrdiff_t>(cut_of(cores));
  const std::vector<at::Tensor> before(cores.begin(), at_cut), after(at_cut, cores.end());
  /// […, (i, j), (a, b)]
  const auto as_matrix = [](const std::vector<at::Tensor>& some, bool bonds_turned) {
    const auto modes = static_cast<std::int64_t>(some.size());
    std::vector<std::int64_t> order = grid_order(some.size(), false, {});
    order.insert(order.end(),
                 {2 * modes + (bonds_turned ? 1 : 0), 2 * modes + (bonds_turned ? 0 : 1)});
    return last_axes(matrix_grid(some), order).flatten(-2).flatten(-2 * modes - 1, -2);
  };
  const auto size_of = [](const std::vector<at::Tensor>& some) {
    std::int64_t size = 1;
    for (const at::Tensor& core : some) size *= core.size(-3);
    return size;
  };
  const std::int64_t left = size_of(before), right = size_of(after);
  if (after.empty()) {
    const std::int64_t rank = cores.front().size(-2);
    return as_matrix(before, false)
        .unflatten(-1, {rank, rank})
        .diagonal(0, -2, -1)
        .sum(-1)
        .unflatten(-1, {left, left});
  }
  // sum_ab L_ab ⊗ M_ba, M's modes the slower ones: [iM, jM, iL, jL] in the product's order
  const at::Tensor product =
      at::matmul(as_matrix(after, true), as_matrix(before, false).transpose(-2, -1));
  return last_axes(product.unflatten(-1, {left, left}).unflatten(-3, {right, right}), {0, 2, 1, 3})
      .flatten(-2)
      .flatten(-3, -2);
}

}  // namespace ringlet::adapt
