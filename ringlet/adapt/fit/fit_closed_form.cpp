#include "ringlet/adapt/fit/fit_closed_form.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>

#include "ringlet/adapt/fit/fit_ring.h"
#include "ringlet/adapt/fit/turns.h"
#include "ringlet/adapt/part.h"
#include "ringlet/core/random.h"

namespace ringlet::adapt {
namespace {

/// The eigenvectors of A A^t for a wide matrix A [k, many], in rising order of the eigenvalues, and
/// these; fp64.
std::tuple<at::Tensor, at::Tensor> left_eigenvectors(const at::Tensor& wide) {
  const at::Tensor exact = wide.to(at::kDouble);
  const auto [values, vectors] = at::linalg_eigh(at::matmul(exact, exact.t()));
  return {values.clamp_min(0.0), vectors};
}

/// The largest `rank` right singular vectors of a wide or square matrix, as rows, by a block Krylov
/// iteration (Musco and Musco 2015): products with a few columns and decompositions of as many, in
/// place of one of the whole. Done when a block adds less than 1e-6 of the squared error, or of
/// rounding where there is none; undefined where a basis of half the height does not do.
at::Tensor largest_right_vectors(const at::Tensor& matrix, std::int64_t rank) {
  constexpr std::int64_t kMore = 4;
  constexpr double kShare = 1e-6, kRounding = 1e-12;
  const std::int64_t block = rank + kMore;
  const double total = matrix.to(at::kDouble).square().sum().item<double>();
  RandomStream random = Random(0).stream("low rank");
  at::Tensor start = normal_start({matrix.size(1), block}, 1.0, random);
  start = start.to(matrix.device(), matrix.scalar_type());
  at::Tensor basis = std::get<0>(at::linalg_qr(start)), last = at::matmul(matrix, basis);
  at::Tensor images = last;  // of the basis
  double before = -1.0;
  while (basis.size(1) + block <= matrix.size(0) / 2) {
    const auto [squares, vectors] = left_eigenvectors(images.t());
    const std::int64_t first = squares.size(0) - rank;
    const double captured = squares.narrow(0, first, rank).sum().item<double>();
    if (before >= 0.0 &&
        captured - before <= std::max(kShare * (total - captured), kRounding * total))
      return at::matmul(basis, vectors.narrow(1, first, rank).to(basis.scalar_type())).t();
    before = captured;
    at::Tensor more = at::matmul(matrix.t(), last);
    // Twice before and once after, since rounding leaves some of the basis in what is small.
    for (int i = 0; i < 2; ++i) more = more - at::matmul(basis, at::matmul(basis.t(), more));
    more = std::get<0>(at::linalg_qr(more));
    more = more - at::matmul(basis, at::matmul(basis.t(), more));
    last = at::matmul(matrix, more);
    basis = at::cat({basis, more}, 1);
    images = at::cat({images, last}, 1);
  }
  return {};
}

/// best_low_rank of a large matrix and few ranks; nothing where that is not what it is.
std::optional<LowRankProduct> best_of_few(const at::Tensor& matrix, std::int64_t rank) {
  constexpr std::int64_t kFew = 40, kMore = 4;  // below, the whole decomposition is as fast
  if (kFew * (rank + kMore) > std::min(matrix.size(0), matrix.size(1))) return std::nullopt;
  if (matrix.size(0) > matrix.size(1)) {
    const auto turned = best_of_few(matrix.t().contiguous(), rank);
    if (!turned) return std::nullopt;
    return LowRankProduct{turned->right.t().contiguous(), turned->left.t().contiguous()};
  }
  const at::Tensor rows = largest_right_vectors(matrix, rank);
  if (!rows.defined()) return std::nullopt;
  const at::Tensor columns = at::matmul(matrix, rows.t());  // U diag(s)
  const at::Tensor root = at::linalg_vector_norm(columns, 2, {0}).sqrt();
  const at::Tensor left = at::where(root > 0, columns / root, 0.0);
  return LowRankProduct{left, root.unsqueeze(1) * rows};
}

}  // namespace

LowRankProduct best_low_rank(const at::Tensor& matrix, std::int64_t rank) {
  const at::NoGradGuard no_grad;
  if (const auto found = best_of_few(matrix, rank)) return *found;
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
  int rounds = 1;
  if (!basis_.defined()) {
    constexpr int kFirstRounds = 6;
    rounds = kFirstRounds;
    RandomStream random = Random(seed_).stream("low rank");
    basis_ = normal_start({width, matrix.size(1)}, 1.0, random).to(matrix.device());
  }
  // Through Gram matrices of a few rows: decompositions of the long ones take most of the time.
  at::Tensor u;
  for (int i = 0; i < rounds; ++i) {
    const at::Tensor rows = at::matmul(basis_, matrix.t());  // [width, rows]
    const auto [squares, vectors] = left_eigenvectors(rows);
    constexpr double kSmallest = 1e-10;
    const at::Tensor scales =
        squares.clamp_min(kSmallest * squares[width - 1].item<double>() + 1e-300).rsqrt();
    u = at::matmul((vectors * scales).t().to(matrix.scalar_type()), rows);  // orthonormal rows
    basis_ = at::matmul(u, matrix);
  }
  const auto [squares, vectors] = left_eigenvectors(basis_);
  const at::Tensor largest =
      vectors.narrow(1, width - rank_, rank_).to(matrix.scalar_type());  // [width, rank]
  return at::matmul(at::matmul(u.t(), largest), at::matmul(largest.t(), basis_));
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

at::Tensor best_scales(const at::Tensor& w0, const at::Tensor& wanted, Side side) {
  const auto sums = [side](const at::Tensor& w) {
    return three_axes(w).sum(side == Side::output ? at::IntArrayRef{1, 2} : at::IntArrayRef{0, 2});
  };
  const at::Tensor squares = sums(w0 * w0), zero = squares <= 0;
  return at::where(zero, 1.0, sums(w0 * wanted) / at::where(zero, 1.0, squares));
}

ScaledLowRank best_scaled_low_rank(const at::Tensor& w0, const at::Tensor& wanted, Side side,
                                   std::int64_t rank, const ScaledLowRankOptions& options) {
  const at::NoGradGuard no_grad;
  std::vector<std::int64_t> shape(static_cast<std::size_t>(w0.dim()), 1);
  shape[side == Side::output ? 0 : 1] = -1;
  const double squared_norm = (wanted - w0).to(at::kDouble).square().sum().item<double>();
  LowRankTracker tracker(rank, options.seed);
  Turns turns(options.tolerance);
  ScaledLowRank found;
  at::Tensor gain = best_scales(w0, wanted, side);
  while (found.turns < options.most_turns && !found.converged) {
    const at::Tensor rest = wanted - gain.view(shape) * w0;
    const at::Tensor product = tracker.approximate(rest.flatten(1)).view_as(rest);
    gain = best_scales(w0, wanted - product, side);
    const double missed = (rest - product).square().sum(at::kDouble).item<double>();
    ++found.turns;
    found.converged = turns.converged(missed / squared_norm);
  }
  // A row that vanishes has no direction that a length could belong to.
  constexpr double kLeast = 1e-3;
  gain = at::where(gain.abs() < kLeast, kLeast, gain).view(shape);
  const at::Tensor rest = wanted - gain * w0;
  const LowRankProduct best = best_low_rank(rest.flatten(1), rank);
  found.change = at::matmul(best.left, best.right).view_as(rest) / gain;
  return found;
}

}  // namespace ringlet::adapt
