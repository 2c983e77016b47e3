#include "ringlet/adapt/parts/difference.h"

#include <ATen/ops/zeros.h>

namespace ringlet::adapt {

Difference::Difference(const LayerShape& shape)
    : difference_(at::zeros(shape.sizes()).set_requires_grad(true)) {}

at::Tensor Difference::forward(const nn::Layer& layer, const at::Tensor& x) const {
  return layer.operate(difference_.to(x.scalar_type()), {}, x);
}

}  // namespace ringlet::adapt
