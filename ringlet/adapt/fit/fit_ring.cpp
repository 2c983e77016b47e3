#include "ringlet/adapt/fit/fit_ring.h"

#include <string>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>

#include "ringlet/adapt/fit/turns.h"
#include "ringlet/adapt/part.h"
#include "ringlet/adapt/parts/ring.h"

namespace ringlet::adapt {
namespace {

/// C_{d+1} … C_n C_1 … C_{d-1}: all cores of a ring but one, [their modes, R, R].
at::Tensor chain_without(const std::vector<at::Tensor>& cores, std::size_t d) {
  at::Tensor chain = cores[(d + 1) % cores.size()];
  for (std::size_t k = 2; k < cores.size(); ++k)  // the new index is the faster one
    chain = at::einsum("iab,kbc->ikac", {chain, cores[(d + k) % cores.size()]}).flatten(0, 1);
  return chain;
}

/// D[i_d, rest] = sum_ab C_d[i_d][a, b] design[rest][a, b], as [rest, R²]
at::Tensor slice_design(const std::vector<at::Tensor>& cores, std::size_t d) {
  return chain_without(cores, d).transpose(1, 2).flatten(1);
}

at::Tensor with_ridge(const at::Tensor& gram, double share) {
  constexpr double kLeast = 1e-30;
  const double ridge = share * gram.trace().item<double>() / static_cast<double>(gram.size(0));
  return gram + (ridge + kLeast) * at::eye(gram.size(0), gram.options());
}

/// The best core d for the others; returns the squared error with it.
double solve_core(std::vector<at::Tensor>& cores, std::size_t d, const at::Tensor& modes,
                  double squared_norm) {
  std::vector<std::int64_t> order;
  for (std::size_t k = 0; k < cores.size(); ++k)
    order.push_back(static_cast<std::int64_t>((d + k) % cores.size()));
  const at::Tensor unfolded = modes.permute(order).flatten(1);  // [f_d, the others' modes]
  const at::Tensor design = slice_design(cores, d);
  const at::Tensor gram = at::matmul(design.t(), design).to(at::kDouble);
  const at::Tensor right = at::matmul(unfolded, design).to(at::kDouble);
  constexpr double kRidge = 1e-7;  // cores of more ranks than they need are singular
  const at::Tensor core = at::linalg_solve(with_ridge(gram, kRidge), right.t()).t();
  cores[d].copy_(core.reshape(cores[d].sizes()));
  return squared_norm + ((at::matmul(core, gram) - 2.0 * right) * core).sum().item<double>();
}

/// The product C_first … C_(last-1) of neighbouring cores as a matrix [their modes, R²].
at::Tensor product_of(const std::vector<at::Tensor>& cores, std::size_t first, std::size_t last) {
  at::Tensor chain = cores[first];
  for (std::size_t d = first + 1; d < last; ++d)
    chain = at::einsum("iab,kbc->ikac", {chain, cores[d]}).flatten(0, 1);
  return chain.flatten(1);
}

/// Solves cores [first, last) of a ring for `modes`. The others are held, so that the rest of the
/// difference matters only as far as their product reaches: an orthonormal basis of that, of R²
/// numbers, stands in place of all their modes, and the product in it in place of their cores.
/// Returns the squared error.
double solve_half(std::vector<at::Tensor>& cores, std::size_t first, std::size_t last,
                  const at::Tensor& matrix, double squared_norm) {
  const bool front = first == 0;
  const std::size_t other_first = front ? last : 0, other_last = front ? cores.size() : first;
  const std::int64_t rank = cores.front().size(1);
  const at::Tensor others = product_of(cores, other_first, other_last);
  const auto [basis, product] = at::linalg_qr(others);  // [modes, k], [k, R²]
  std::vector<at::Tensor> ring(cores.begin() + static_cast<std::ptrdiff_t>(first),
                               cores.begin() + static_cast<std::ptrdiff_t>(last));
  std::vector<std::int64_t> shape;
  for (const at::Tensor& core : ring) shape.push_back(core.size(0));
  shape.push_back(basis.size(1));
  // What the front solves for lies in the rows of `matrix`, the back's in its columns.
  const at::Tensor reduced = at::matmul(front ? matrix : matrix.t(), basis).view(shape);
  ring.push_back(product.reshape({-1, rank, rank}));
  double error = 0.0;
  for (std::size_t d = 0; d + 1 < ring.size(); ++d)
    error = solve_core(ring, d, reduced, squared_norm);
  return error;
}

/// The array that a ring makes, the modes of its first cores by those of the rest.
at::Tensor made_matrix(const std::vector<at::Tensor>& cores, std::size_t half) {
  const std::int64_t rank = cores.front().size(1);
  const at::Tensor back = product_of(cores, half, cores.size()).view({-1, rank, rank});
  return at::matmul(product_of(cores, 0, half), back.transpose(1, 2).flatten(1).t());
}

}  // namespace

at::Tensor modes_of(const at::Tensor& weight, const Parameters& cores) {
  std::vector<std::int64_t> out, in;  // little-endian: the first factor is the fastest
  for (const auto& [name, core] : cores) {
    if (name.starts_with("out_")) out.insert(out.begin(), core.size(0));
    if (name.starts_with("in_")) in.insert(in.begin(), core.size(0));
  }
  const auto product = [](const std::vector<std::int64_t>& sizes) {
    std::int64_t total = 1;
    for (const std::int64_t size : sizes) total *= size;
    return total;
  };
  const at::Tensor three = three_axes(weight);
  const at::Tensor padded = at::constant_pad_nd(
      three, {0, 0, 0, product(in) - three.size(1), 0, product(out) - three.size(0)});
  std::vector<std::int64_t> shape = out, order;
  shape.insert(shape.end(), in.begin(), in.end());
  shape.push_back(three.size(2));
  auto next_out = static_cast<std::int64_t>(out.size());
  auto next_in = static_cast<std::int64_t>(out.size() + in.size());
  for (const auto& [name, core] : cores)
    order.push_back(name.starts_with("out_")  ? --next_out
                    : name.starts_with("in_") ? --next_in
                                              : static_cast<std::int64_t>(shape.size()) - 1);
  at::Tensor modes = padded.reshape(shape);
  if (order.size() < shape.size()) modes = modes.squeeze(-1);  // one kernel position, no core
  return modes.permute(order).contiguous();
}

SweepResult sweep_tensor_ring(const Parameters& cores, const at::Tensor& difference,
                              std::int64_t most_sweeps, double tolerance) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> ring;
  std::int64_t rows = 1;
  std::size_t half = 0;
  for (const auto& [name, core] : cores) {
    ring.push_back(core);
    if (!name.starts_with("out_")) continue;
    rows *= core.size(0);
    ++half;
  }
  const at::Tensor wanted = modes_of(difference, cores).view({rows, -1});
  const bool padded = wanted.numel() != difference.numel();
  const at::Tensor known =
      padded ? modes_of(at::ones_like(difference), cores).view({rows, -1}) > 0.5 : at::Tensor();
  at::Tensor matrix = wanted;
  Turns turns(tolerance);
  SweepResult result;
  while (result.sweeps < most_sweeps && !result.converged) {
    const double squared_norm = matrix.to(at::kDouble).square().sum().item<double>();
    solve_half(ring, 0, half, matrix, squared_norm);
    const double error = solve_half(ring, half, ring.size(), matrix, squared_norm);
    // What the cores make of the padding is free: it is wanted as it is.
    if (padded) matrix = at::where(known, wanted, made_matrix(ring, half));
    ++result.sweeps;
    result.converged = turns.converged(error / squared_norm);
  }
  return result;
}

std::vector<at::Tensor> ring_grams(const Parameters& cores) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> ring, grams;
  for (const auto& [name, core] : cores) ring.push_back(core);
  for (std::size_t d = 0; d < ring.size(); ++d) {
    const at::Tensor design = slice_design(ring, d);
    grams.push_back(at::matmul(design.t(), design).to(at::kDouble));
  }
  return grams;
}

RingMatrixRows::RingMatrixRows(const Parameters& cores, const at::Tensor& rows) {
  std::vector<std::int64_t> grid;
  std::int64_t width = 1;
  for (const auto& [name, core] : cores) {
    cores_.push_back(core);
    width *= core.size(0);
    grid.insert(grid.begin(), core.size(0));
  }
  padded_ = width != rows.size(1);
  grid.insert(grid.begin(), rows.size(0));
  rows_ = at::constant_pad_nd(rows, {0, width - rows.size(1)}).reshape(grid);
}

/// The axes of a grid [N, f_D, …, f_1] with mode d apart from the others, the first after d
/// fastest.
std::vector<std::int64_t> RingMatrixRows::grid_order(std::size_t d, bool mode_last) const {
  const std::size_t count = cores_.size();
  const auto axis = [&](std::size_t mode) { return static_cast<std::int64_t>(count - mode); };
  std::vector<std::int64_t> order = {0};
  if (!mode_last) order.push_back(axis(d));
  for (std::size_t k = count - 1; k >= 1; --k) order.push_back(axis((d + k) % count));
  if (mode_last) order.push_back(axis(d));
  return order;
}

/// (rows T)[n, (J, j_d)] = sum_(i, a, b) design[(n, J), (i, a, b)] A_d[i, j_d][a, b], J the other
/// modes: [N J, f R²]
at::Tensor RingMatrixRows::design(std::size_t d) const {
  const std::int64_t size = cores_[d].size(0), rank = cores_[d].size(2);
  std::vector<at::Tensor> others;
  for (std::size_t k = 1; k < cores_.size(); ++k) others.push_back(cores_[(d + k) % cores_.size()]);
  const at::Tensor chain = others.empty()
                               ? at::eye(rank, cores_[d].options()).view({1, 1, rank, rank})
                               : chain_of_matrices(others);  // [I, J, b, a]
  const at::Tensor grid = rows_.permute(grid_order(d, false)).reshape({-1, chain.size(0)});
  return matrix_product(grid, chain.flatten(1).t().contiguous())  // [(n, i), (J, b, a)]
      .view({rows_.size(0), size, chain.size(1), rank, rank})
      .permute({0, 2, 1, 4, 3})
      .reshape({-1, size * rank * rank});
}

at::Tensor RingMatrixRows::sweep(const at::Tensor& gap) {
  const at::NoGradGuard no_grad;
  at::Tensor rest = gap.reshape(rows_.sizes());
  for (std::size_t d = 0; d < cores_.size(); ++d) {
    const std::int64_t size = cores_[d].size(0), rank = cores_[d].size(2);
    const std::vector<std::int64_t> order = grid_order(d, true);
    const at::Tensor wanted = rest.permute(order).reshape({-1, size});  // [(n, J), j_d]
    const at::Tensor columns = design(d);
    const at::Tensor gram = at::matmul(columns.t(), columns).to(at::kDouble);
    const at::Tensor right = at::matmul(columns.t(), wanted).to(at::kDouble);
    // The change of the core, which a ridge keeps small along what changes nothing.
    constexpr double kRidge = 1e-6;
    const at::Tensor change =
        at::linalg_solve(with_ridge(gram, kRidge), right).to(cores_[d].scalar_type());
    cores_[d].add_(change.view({size, rank, rank, size}).permute({0, 3, 1, 2}));
    std::vector<std::int64_t> shape, back(order.size());
    for (std::size_t axis = 0; axis < order.size(); ++axis) {
      shape.push_back(rest.size(order[axis]));
      back[static_cast<std::size_t>(order[axis])] = static_cast<std::int64_t>(axis);
    }
    rest = (wanted - at::matmul(columns, change)).view(shape).permute(back);
  }
  return rest.reshape(gap.sizes());
}

std::vector<at::Tensor> RingMatrixRows::grams() const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> grams;
  for (std::size_t d = 0; d < cores_.size(); ++d) {
    const at::Tensor columns = design(d);
    grams.push_back(at::matmul(columns.t(), columns).to(at::kDouble));
  }
  return grams;
}

}  // namespace ringlet::adapt
