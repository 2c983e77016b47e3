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

/// Gram-Schmidt over the columns of u […, width, r], in order.
at::Tensor orthonormal(const at::Tensor& u) {
  std::vector<at::Tensor> columns;
  for (std::int64_t k = 0; k < u.size(-1); ++k) {
    at::Tensor column = u.select(-1, k);
    for (const at::Tensor& before : columns)
      column = column - (before * column).sum(-1, true) * before;
    columns.push_back(column / column.norm(2, -1, true));
  }
  return at::stack(columns, -1);
}

/// U and -U S.
Tensors wy_form(const at::Tensor& vectors, bool orthogonalised) {
  const at::Tensor one = at::eye(vectors.size(-1), vectors.options().requires_grad(false));
  if (orthogonalised) {
    const at::Tensor u = orthonormal(vectors);
    return {u, -2.0 * u};
  }
  const at::Tensor u = vectors / vectors.norm(2, -2, true);
  const at::Tensor inverse = 0.5 * one + at::triu(at::matmul(u.transpose(-2, -1), u), 1);
  // U S = X with X S^-1 = U
  return {u, -at::linalg_solve_triangular(inverse, u, /*upper=*/true, /*left=*/false)};
}

}  // namespace

Householder::Householder(std::int64_t width, std::int64_t rank, bool orthogonalised, bool start,
                         RandomStream random) {
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
  form_ = {orthogonalised ? "wy form of orthonormal vectors" : "wy form",
           {u_},
           [orthogonalised](const Tensors& from) { return wy_form(from.front(), orthogonalised); }};
}

at::Tensor Householder::forward(const at::Tensor& x) const {
  const Tensors form = form_.values();
  return add_low_rank(x, form[1], form[0].t());
}

at::Tensor Householder::right_multiply(const at::Tensor& w) const {
  const Tensors form = form_.values();
  return add_low_rank(w, form[0], form[1].t());
}

}  // namespace ringlet::adapt
