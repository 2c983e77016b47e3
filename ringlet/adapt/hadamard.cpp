#include "ringlet/adapt/hadamard.h"

#include <ATen/ops/einsum.h>
#include <ATen/ops/zeros.h>

namespace ringlet::adapt {

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
}

Parameters Hadamard::parameters() const {
  Parameters named = {{"w1_a", w1_a_}, {"w1_b", w1_b_}, {"w2_a", w2_a_}, {"w2_b", w2_b_}};
  if (t1_.defined()) named.insert(named.end(), {{"t1", t1_}, {"t2", t2_}});
  return named;
}

FactoredResidual::Pair Hadamard::factors() const {
  const bool tucker = t1_.defined();
  // Column (k, l) of up is w1_a[:, k] ⊙ w2_a[:, l].
  const at::Tensor up =
      tucker ? at::einsum("ko,lo->okl", {w1_a_, w2_a_}) : at::einsum("ok,ol->okl", {w1_a_, w2_a_});
  const at::Tensor first = tucker ? at::einsum("ijkl,jc->ickl", {t1_, w1_b_}).flatten(1) : w1_b_;
  const at::Tensor second = tucker ? at::einsum("ijkl,jc->ickl", {t2_, w2_b_}).flatten(1) : w2_b_;
  const at::Tensor down = at::einsum("kp,lp->klp", {first, second}).flatten(0, 1);
  return {down.view(shape_.with_rows(down.size(0))), up.flatten(1), scale_};
}

}  // namespace ringlet::adapt
