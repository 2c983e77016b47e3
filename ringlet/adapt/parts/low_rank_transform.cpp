#include "ringlet/adapt/parts/low_rank_transform.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

namespace ringlet::adapt {

at::Tensor add_low_rank(const at::Tensor& x, const at::Tensor& p, const at::Tensor& q,
                        double scale) {
  const auto type = x.scalar_type();
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  const at::Tensor narrow = at::matmul(rows, q.to(type).t());
  return at::addmm(rows, narrow, p.to(type).t(), 1, scale).view(x.sizes());
}

LowRankTransform::LowRankTransform(std::int64_t width, std::int64_t rank, double scale,
                                   RandomStream random)
    : scale_(scale) {
  a1_start_ = kaiming_start({width, rank}, random);
  a1_ = a1_start_.clone().set_requires_grad(true);
  a2_ = at::zeros({rank, width}).set_requires_grad(true);
}

at::Tensor LowRankTransform::forward(const at::Tensor& x) const {
  return add_low_rank(x, a1_, a2_, scale_);
}

at::Tensor LowRankTransform::right_multiply(const at::Tensor& w) const {
  return add_low_rank(w, a2_.t(), a1_.t(), scale_);
}

}  // namespace ringlet::adapt
