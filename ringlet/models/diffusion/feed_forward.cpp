#include "ringlet/models/diffusion/feed_forward.h"

#include <ATen/ops/gelu.h>

namespace ringlet::models {

at::Tensor gelu_tanh(const at::Tensor& x) { return at::gelu(x, "tanh"); }

FeedForward::FeedForward(const nn::WeightSource& s, std::int64_t width)
    : in_(s.at("net").at(0).at("proj"), width, 4 * width),
      out_(s.at("net").at(2), 4 * width, width) {}

at::Tensor FeedForward::operator()(const at::Tensor& x) const { return out_(gelu_tanh(in_(x))); }

}  // namespace ringlet::models
