#include "ringlet/adapt/parts/diagonal.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>

namespace ringlet::adapt {

Diagonal::Diagonal(std::int64_t width, Side side, bool offset, bool with_bias)
    : side_(side),
      offset_(offset),
      with_bias_(with_bias && side == Side::output),
      scale_(at::full({width}, offset ? 0.0 : 1.0, at::kFloat).set_requires_grad(true)) {}

Parameters Diagonal::starts() const {
  if (offset_) return {};
  return {{"scale", at::ones_like(scale_, at::TensorOptions().requires_grad(false))}};
}

at::Tensor Diagonal::forward(const at::Tensor& x) const {
  return x * (offset_ ? scale_ + 1.0 : scale_).to(x.scalar_type());
}

}  // namespace ringlet::adapt
