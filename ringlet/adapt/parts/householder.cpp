#include "ringlet/adapt/parts/householder.h"

#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/triu.h>

#include "ringlet/adapt/parts/low_rank_transform.h"
#include "ringlet/core/error.h"

namespace ringlet::adapt {
namespace {

/// Gram-Schmidt over the columns, in order.
at::Tensor orthonormal(const at::Tensor& u) {
  std::vector<at::Tensor> columns;
  for (std::int64_t k = 0; k < u.size(1); ++k) {
    at::Tensor column = u.select(1, k);
    for (const at::Tensor& before : columns) column = column - before.dot(column) * before;
    columns.push_back(column / column.norm());
  }
  return at::stack(columns, 1);
}

}  // namespace

Householder::Householder(std::int64_t width, std::int64_t rank, bool orthogonalised, bool start,
                         RandomStream random)
    : orthogonalised_(orthogonalised) {
  if (start && orthogonalised)
    throw Error(ErrorCode::unsupported, "hra(orthogonal=yes)",
                "is never the identity, so training cannot start from it",
                "use hra(orthogonal=no)");
  if (start && rank % 2 != 0)
    throw Error(ErrorCode::unsupported, "hra(rank=" + std::to_string(rank) + ")",
                "an odd number of reflections is never the identity", "use an even rank");
  const at::Tensor half = kaiming_start({(rank + 1) / 2, width}, random);
  u_start_ = half.repeat_interleave(2, 0).narrow(0, 0, rank).t().contiguous();
  u_ = u_start_.clone().set_requires_grad(true);
}

Householder::Form Householder::form() const {
  const at::Tensor one = at::eye(u_.size(1), u_.options().requires_grad(false));
  if (orthogonalised_) return {orthonormal(u_), 2.0 * one};
  const at::Tensor u = u_ / u_.norm(2, 0, true);
  const at::Tensor inverse = 0.5 * one + at::triu(at::matmul(u.t(), u), 1);
  return {u, at::linalg_solve_triangular(inverse, one, true)};
}

at::Tensor Householder::forward(const at::Tensor& x) const {
  const auto [u, s] = form();
  return add_low_rank(x, -at::matmul(u, s), u.t());
}

at::Tensor Householder::right_multiply(const at::Tensor& w) const {
  const auto [u, s] = form();
  return add_low_rank(w, u, -at::matmul(u, s).t());
}

}  // namespace ringlet::adapt
