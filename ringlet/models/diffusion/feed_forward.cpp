#include "ringlet/models/diffusion/feed_forward.h"

#include <ATen/ops/gelu.h>

#include "ringlet/nn/layer_scope.h"
#include "ringlet/nn/recomputed_inputs.h"

namespace ringlet::models {

at::Tensor gelu_tanh(const at::Tensor& x) {
  const nn::LayerScope scope(nn::LayerKind::activation);
  return at::gelu(x, "tanh");
}

FeedForward::FeedForward(const nn::WeightSource& s, std::int64_t width)
    : in_(s.at("net").at(0).at("proj"), width, 4 * width),
      out_(s.at("net").at(2), 4 * width, width) {}

at::Tensor FeedForward::operator()(const at::Tensor& x) const {
  const auto activated = [](const auto& in) { return gelu_tanh(in.front()); };
  return nn::use_recomputed(activated, {in_(x)}, out_);
}

}  // namespace ringlet::models
