#include "ringlet/models/diffusion/modulation.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/silu.h>

#include "ringlet/nn/half_range.h"
#include "ringlet/nn/modulated_norm.h"
#include "ringlet/nn/recomputed_inputs.h"

namespace ringlet::models {

namespace {

at::Tensor normed(const std::vector<at::Tensor>& in) {
  return nn::modulated_layer_norm(in[0], in[1], in[2]);
}

}  // namespace

std::vector<at::Tensor> NormedTokens::into(
    const std::function<std::vector<at::Tensor>(const at::Tensor&)>& layers) const {
  return nn::use_recomputed([](const auto& in) { return std::vector<at::Tensor>{normed(in)}; },
                            {x, modulation.scale, modulation.shift},
                            [&layers](const auto& in) { return layers(in.front()); });
}

at::Tensor NormedTokens::into(const std::function<at::Tensor(const at::Tensor&)>& layers) const {
  return nn::use_recomputed(normed, {x, modulation.scale, modulation.shift}, layers);
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

NormedTokens AdaLayerNormContinuous::operator()(const at::Tensor& x, const at::Tensor& time) const {
  const auto parts = linear_(at::silu(time)).unsqueeze(1).chunk(2, -1);
  return {x, {.shift = parts[1], .scale = parts[0], .gate = {}}};
}

}  // namespace ringlet::models
