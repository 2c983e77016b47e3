#include "ringlet/adapt/fit_closed_form.h"

#include <algorithm>
#include <string>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/random.h"

namespace ringlet::adapt {
namespace {

at::Tensor three_axes(const at::Tensor& w) { return w.dim() == 2 ? w.unsqueeze(-1) : w.flatten(2); }

/// A weight as the array that a chain of cores makes, [f_0, f_1, …] in the chain's order, padded
/// with zeros where the factors make more than a dimension.
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

/// C_{d+1} … C_n C_1 … C_{d-1}: all cores of a ring but one, [their modes, R, R].
at::Tensor chain_without(const Parameters& cores, std::size_t d) {
  at::Tensor chain = cores[(d + 1) % cores.size()].second;
  for (std::size_t k = 2; k < cores.size(); ++k)  // the new index is the faster one
    chain =
        at::einsum("iab,kbc->ikac", {chain, cores[(d + k) % cores.size()].second}).flatten(0, 1);
  return chain;
}

/// The best core d for the others; returns the squared error with it.
double solve_core(const Parameters& cores, std::size_t d, const at::Tensor& modes,
                  double squared_norm) {
  std::vector<std::int64_t> order;
  for (std::size_t k = 0; k < cores.size(); ++k)
    order.push_back(static_cast<std::int64_t>((d + k) % cores.size()));
  const at::Tensor unfolded = modes.permute(order).flatten(1);  // [f_d, the others' modes]
  // D[i_d, rest] = sum_ab C_d[i_d][a, b] chain[rest][b, a]
  const at::Tensor design = chain_without(cores, d).transpose(1, 2).flatten(1);
  const at::Tensor gram = at::matmul(design.t(), design).to(at::kDouble);
  const at::Tensor right = at::matmul(unfolded, design).to(at::kDouble);
  constexpr double kRidge = 1e-7,
                   kLeast = 1e-30;  // cores of more ranks than they need are singular
  const double ridge = kRidge * gram.trace().item<double>() / static_cast<double>(gram.size(0));
  const at::Tensor core =
      at::linalg_solve(gram + (ridge + kLeast) * at::eye(gram.size(0), gram.options()), right.t())
          .t();
  cores[d].second.copy_(core.reshape(cores[d].second.sizes()));
  return squared_norm + ((at::matmul(core, gram) - 2.0 * right) * core).sum().item<double>();
}

}  // namespace

LowRankProduct best_low_rank(const at::Tensor& matrix, std::int64_t rank) {
  const auto [u, s, vt] = at::linalg_svd(matrix, false);
  const std::int64_t kept = std::min(rank, s.size(0));
  const at::Tensor root = s.narrow(0, 0, kept).sqrt();
  const at::Tensor left = u.narrow(1, 0, kept) * root;
  const at::Tensor right = root.unsqueeze(1) * vt.narrow(0, 0, kept);
  return {at::constant_pad_nd(left, {0, rank - kept}),
          at::constant_pad_nd(right, {0, 0, 0, rank - kept})};
}

at::Tensor LowRankTracker::approximate(const at::Tensor& matrix) {
  constexpr std::int64_t kMore = 8;
  const std::int64_t width = rank_ + kMore, smaller = std::min(matrix.size(0), matrix.size(1));
  if (2 * width >= smaller) {
    const LowRankProduct product = best_low_rank(matrix, std::min(rank_, smaller));
    return at::matmul(product.left, product.right);
  }
  int rounds = 2;
  if (!basis_.defined()) {
    constexpr int kFirstRounds = 6;
    rounds = kFirstRounds;
    RandomStream random = Random(seed_).stream("low rank");
    basis_ = normal_start({matrix.size(1), width}, 1.0, random).to(matrix.device());
  }
  at::Tensor u, rest;
  for (int i = 0; i < rounds; ++i) {
    u = std::get<0>(at::linalg_qr(at::matmul(matrix, basis_)));
    rest = at::matmul(u.t(), matrix);  // [width, columns]
    basis_ = rest.t();
  }
  const auto [left, s, vt] = at::linalg_svd(rest, false);
  basis_ = vt.t();
  return at::matmul(at::matmul(u, left.narrow(1, 0, rank_) * s.narrow(0, 0, rank_)),
                    vt.narrow(0, 0, rank_));
}

void set_tensor_train(const Parameters& cores, const at::Tensor& difference) {
  const at::NoGradGuard no_grad;
  at::Tensor rest = modes_of(difference, cores);
  std::int64_t before = 1;
  for (std::size_t d = 0; d + 1 < cores.size(); ++d) {
    const at::Tensor& core = cores[d].second;  // [f, rank before, rank after]
    const auto [u, s, vt] = at::linalg_svd(rest.reshape({before * core.size(0), -1}), false);
    const std::int64_t after = std::min(core.size(2), s.size(0));
    core.zero_();
    core.narrow(1, 0, before)
        .narrow(2, 0, after)
        .copy_(u.narrow(1, 0, after).reshape({before, core.size(0), after}).transpose(0, 1));
    rest = s.narrow(0, 0, after).unsqueeze(1) * vt.narrow(0, 0, after);
    before = after;
  }
  const at::Tensor& last = cores.back().second;
  last.zero_();
  last.narrow(1, 0, before).copy_(rest.reshape({before, last.size(0), 1}).transpose(0, 1));
}

SweepResult sweep_tensor_ring(const Parameters& cores, const at::Tensor& difference,
                              std::int64_t most_sweeps, double tolerance) {
  const at::NoGradGuard no_grad;
  constexpr std::size_t kWindow = 10;
  constexpr double kSmall = 1e-12;
  const at::Tensor modes = modes_of(difference, cores);
  const double squared_norm = modes.to(at::kDouble).square().sum().item<double>();
  std::vector<double> errors;
  SweepResult result;
  while (result.sweeps < most_sweeps && !result.converged) {
    double error = 0.0;
    for (std::size_t d = 0; d < cores.size(); ++d)
      error = solve_core(cores, d, modes, squared_norm);
    errors.push_back(error);
    ++result.sweeps;
    const double earlier = errors.size() > kWindow ? errors[errors.size() - 1 - kWindow] : 0.0;
    result.converged = error <= kSmall * squared_norm ||
                       (errors.size() > kWindow && earlier - error < tolerance * earlier);
  }
  return result;
}

at::Tensor best_scales(const at::Tensor& w0, const at::Tensor& wanted, Side side) {
  const auto sums = [side](const at::Tensor& w) {
    return three_axes(w).sum(side == Side::output ? at::IntArrayRef{1, 2} : at::IntArrayRef{0, 2});
  };
  const at::Tensor squares = sums(w0 * w0), zero = squares <= 0;
  return at::where(zero, 1.0, sums(w0 * wanted) / at::where(zero, 1.0, squares));
}

}  // namespace ringlet::adapt
