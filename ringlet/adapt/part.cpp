#include "ringlet/adapt/part.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>

namespace ringlet::adapt {

LayerShape LayerShape::of(const at::Tensor& weight) {
  if (weight.dim() == 2) return {weight.size(0), weight.size(1)};
  return {weight.size(0), weight.size(1), weight.size(2), weight.size(3), true};
}

at::Tensor FactoredResidual::forward(const nn::Layer& layer, const at::Tensor& x) const {
  const Pair pair = factors();
  const auto type = x.scalar_type();
  const at::Tensor narrow = layer.operate(pair.down.to(type), {}, x);
  const at::Tensor up = (pair.scale * pair.up).to(type);
  if (pair.down.dim() == 2) return at::linear(narrow, up);
  // A 1x1 convolution, as a product over channels-last vectors.
  return at::linear(narrow.permute({0, 2, 3, 1}), up).permute({0, 3, 1, 2});
}

at::Tensor FactoredResidual::weight() const {
  const Pair pair = factors();
  const at::Tensor flat = pair.scale * at::matmul(pair.up, pair.down.flatten(1));
  std::vector<std::int64_t> shape = pair.down.sizes().vec();
  shape[0] = pair.up.size(0);
  return flat.view(shape);
}

}  // namespace ringlet::adapt
