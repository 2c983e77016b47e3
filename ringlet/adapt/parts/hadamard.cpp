#include "ringlet/adapt/parts/hadamard.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

namespace ringlet::adapt {
namespace {

/// The a [rows, rank] for which (a b) ⊙ mask is nearest to `wanted` [rows, columns], b
/// [rank, columns]: a small system for each row.
at::Tensor best_rows(const at::Tensor& wanted, const at::Tensor& b, const at::Tensor& mask) {
  const std::int64_t rank = b.size(0);
  const at::Tensor pairs = at::einsum("kp,lp->klp", {b, b}).flatten(0, 1);
  at::Tensor grams = at::matmul(mask.square(), pairs.t()).to(at::kDouble).view({-1, rank, rank});
  const at::Tensor right = at::matmul(wanted * mask, b.t()).to(at::kDouble).unsqueeze(2);
  constexpr double kRidge = 1e-7, kLeast = 1e-30;
  const at::Tensor ridge =
      kRidge / static_cast<double>(rank) * grams.diagonal(0, 1, 2).sum(1) + kLeast;
  grams = grams + ridge.view({-1, 1, 1}) * at::eye(rank, grams.options());
  return at::linalg_solve(grams, right).squeeze(2).to(wanted.scalar_type());
}

/// a [n, R, p] and b [n, R, p] -> [n, (k, l), p], a_k ⊙ b_l.
Tensors row_products(const at::Tensor& a, const at::Tensor& b) {
  return {(a.unsqueeze(2) * b.unsqueeze(1)).flatten(1, 2)};
}

}  // namespace

Hadamard::Hadamard(const LayerShape& shape, std::int64_t rank, double scale, bool tucker,
                   RandomStream random)
    : FactoredResidual(shape, rank * rank), scale_(scale) {
  constexpr double kSmall = 0.1;  // the deviations of LyCORIS
  const std::int64_t in = tucker ? shape.in : shape.patch();
  const auto left = [&](std::int64_t out) -> std::vector<std::int64_t> {
    if (tucker) return {rank, out};
    return {out, rank};
  };
  w1_a_ = normal_start(left(shape.out), kSmall, random);
  w1_b_ = normal_start({rank, in}, 1.0, random);
  w2_a_ = at::zeros(left(shape.out));
  w2_b_ = normal_start({rank, in}, 1.0, random);
  if (tucker) {
    const std::vector<std::int64_t> core = {rank, rank, shape.kernel_height, shape.kernel_width};
    t1_ = normal_start(core, kSmall, random);
    t2_ = normal_start(core, kSmall, random);
  }
  for (const auto& [name, tensor] : parameters()) tensor.set_requires_grad(true);
  // Column (k, l) of up is w1_a[:, k] ⊙ w2_a[:, l], row (k, l) of down w1_b[k] ⊙ w2_b[l].
  up_ = {tucker ? "loha up" : "loha up of columns", {w1_a_, w2_a_}, [tucker](const Tensors& w) {
           return tucker ? row_products(w[0], w[1])
                         : row_products(w[0].transpose(1, 2), w[1].transpose(1, 2));
         }};
  if (!tucker)
    down_ = {
        "loha down", {w1_b_, w2_b_}, [](const Tensors& w) { return row_products(w[0], w[1]); }};
  else
    down_ = {"loha tucker down", {t1_, w1_b_, t2_, w2_b_}, [](const Tensors& w) {
               const auto whole = [](const at::Tensor& t, const at::Tensor& b) {
                 return at::einsum("nijkl,njc->nickl", {t, b}).flatten(2);
               };
               return row_products(whole(w[0], w[1]), whole(w[2], w[3]));
             }};
}

Parameters Hadamard::parameters() const {
  Parameters named = {{"w1_a", w1_a_}, {"w1_b", w1_b_}, {"w2_a", w2_a_}, {"w2_b", w2_b_}};
  if (t1_.defined()) named.insert(named.end(), {{"t1", t1_}, {"t2", t2_}});
  return named;
}

bool Hadamard::approach(const at::Tensor& difference, bool /*first*/) {
  if (t1_.defined()) return false;
  const at::NoGradGuard no_grad;
  const at::Tensor wanted = difference.flatten(1) / scale_;
  const auto improve = [&wanted](const at::Tensor& a, const at::Tensor& b, const at::Tensor& mask) {
    a.copy_(best_rows(wanted, b, mask));
    b.copy_(best_rows(wanted.t(), a.t(), mask.t()).t());
  };
  // The second product first: it starts at zero, and would take away what the first learns from.
  improve(w2_a_, w2_b_, at::matmul(w1_a_, w1_b_));
  improve(w1_a_, w1_b_, at::matmul(w2_a_, w2_b_));
  return true;
}

FactoredResidual::Pair Hadamard::factors() const {
  const at::Tensor down = down_.values().front();
  return {down.view(shape_.with_rows(down.size(0))), up_.values().front().t(), scale_};
}

}  // namespace ringlet::adapt
