#include "ringlet/models/diffusion/modulation.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/silu.h>

#include "ringlet/nn/half_range.h"

namespace ringlet::models {

at::Tensor plain_layer_norm(const at::Tensor& x) {
  constexpr double kEpsilon = 1e-6;
  return at::layer_norm(x, {x.size(-1)}, {}, {}, kEpsilon);
}

at::Tensor modulate(const at::Tensor& normed, const Modulation& m) {
  return at::addcmul(m.shift, normed, 1.0 + m.scale);
}

at::Tensor add_gated(const at::Tensor& x, const Modulation& m, const at::Tensor& y) {
  return nn::within_half_range(at::addcmul(x, m.gate, y));
}

AdaLayerNormZero::AdaLayerNormZero(const nn::WeightSource& s, std::int64_t width,
                                   std::int64_t sublayers)
    : sublayers_(sublayers), linear_(s.at("linear"), width, 3 * sublayers * width) {}

std::vector<Modulation> AdaLayerNormZero::operator()(const at::Tensor& time) const {
  const auto parts = linear_(at::silu(time)).unsqueeze(1).chunk(3 * sublayers_, -1);
  std::vector<Modulation> modulations;
  for (std::size_t i = 0; i < parts.size(); i += 3)
    modulations.push_back({.shift = parts[i], .scale = parts[i + 1], .gate = parts[i + 2]});
  return modulations;
}

AdaLayerNormContinuous::AdaLayerNormContinuous(const nn::WeightSource& s, std::int64_t width)
    : linear_(s.at("linear"), width, 2 * width) {}

at::Tensor AdaLayerNormContinuous::operator()(const at::Tensor& x, const at::Tensor& time) const {
  const auto parts = linear_(at::silu(time)).unsqueeze(1).chunk(2, -1);
  return modulate(plain_layer_norm(x), {.shift = parts[1], .scale = parts[0], .gate = {}});
}

}  // namespace ringlet::models
