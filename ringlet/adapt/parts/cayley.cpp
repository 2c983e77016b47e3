#include "ringlet/adapt/parts/cayley.h"

#include <algorithm>
#include <tuple>

#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve_ex.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/triu_indices.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

namespace ringlet::adapt {
namespace {

at::Tensor identity_like(const at::Tensor& q) {
  return at::eye(q.size(-1), q.options().requires_grad(false));
}

}  // namespace

at::Tensor skew_from_triangle(const at::Tensor& v, std::int64_t size) {
  const at::Tensor places =
      at::triu_indices(size, size, 1, at::TensorOptions(at::kLong).device(v.device()));
  std::vector<std::int64_t> shape = v.sizes().vec();
  shape.back() = size * size;
  const at::Tensor upper = at::zeros(shape, v.options().requires_grad(false))
                               .index_copy(-1, places[0] * size + places[1], v)
                               .unflatten(-1, {size, size});
  return skew_part(upper, 1.0);
}

at::Tensor skew_part(const at::Tensor& m, double scale) {
  const at::Tensor q = m - m.transpose(-1, -2);
  return scale == 1.0 ? q : scale * q;
}

at::Tensor cayley(const at::Tensor& q) {
  const at::Tensor one = identity_like(q);
  // X (I - Q) = I + Q. I - Q is never singular, but a Q too large for its type looks so: the result
  // is then not finite, which merging and training notice, instead of an error from inside.
  return std::get<0>(at::linalg_solve_ex(one - q, one + q, false, /*check_errors=*/false));
}

at::Tensor cayley_neumann(const at::Tensor& q, std::int64_t terms) {
  at::Tensor sum = identity_like(q).expand_as(q);
  if (terms < 2) return sum;
  sum = sum + 2.0 * q;
  if (terms < 3) return sum;
  const std::int64_t highest = std::max<std::int64_t>(3, terms - 1);
  at::Tensor power = q;
  for (std::int64_t h = 2; h <= highest; ++h) {
    power = at::matmul(power, q);
    sum = sum + (h < highest ? 2.0 : 1.0) * power;
  }
  return sum;
}

at::Tensor limit_norm(const at::Tensor& q, double most, bool each) {
  const at::Tensor squares = each ? q.square().sum(at::IntArrayRef{-1, -2}, true)
                                  : q.square().sum(at::IntArrayRef{-1, -2, -3}, true);
  const at::Tensor over = squares > most * most;
  // The inner `where` keeps the root's infinite derivative at zero out of the backward pass.
  return q * at::where(over, most / at::where(over, squares, 1.0).sqrt(), 1.0);
}

}  // namespace ringlet::adapt
