#include "ringlet/nn/attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/function.h>

#include "ringlet/nn/layer_scope.h"

namespace ringlet::nn {

namespace {

at::Tensor attention_of_heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              std::int64_t heads, const at::Tensor& mask, bool causal,
                              std::optional<double> scale) {
  LayerScope scope(LayerKind::attention);
  if (scope.observed()) scope.set_work(attention_work(q, k, v));
  const auto split = [heads](const at::Tensor& x) {  // [B, N, H*d] -> [B, H, N, d], a view
    return x.unflatten(-1, {heads, -1}).transpose(1, 2);
  };
  const std::optional<at::Tensor> given = mask.defined() ? std::optional(mask) : std::nullopt;
  return at::scaled_dot_product_attention(split(q), split(k), split(v), given, 0.0, causal, scale)
      .transpose(1, 2)
      .flatten(2);
}

}  // namespace

at::Tensor multi_head_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                std::int64_t heads, bool causal, const at::Tensor& seen) {
  return attention_of_heads(q, k, v, heads, seen, causal, std::nullopt);
}

at::Tensor biased_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            std::int64_t heads, const at::Tensor& bias) {
  return attention_of_heads(q, k, v, heads, bias, /*causal=*/false, /*scale=*/1.0);
}

bool attention_is_fused(std::int64_t head_width, const at::TensorOptions& options) {
  constexpr std::int64_t kTokens = 16;
  const at::AutoGradMode recording(true);
  const at::Tensor x = at::zeros({1, 1, kTokens, head_width}, options).set_requires_grad(true);
  const at::Tensor y = at::scaled_dot_product_attention(x, x, x);
  return y.grad_fn() && y.grad_fn()->name().starts_with("ScaledDotProduct");
}

Attention::Attention(const WeightSource& source, const AttentionConfig& c)
    : heads_(c.heads),
      upcast_(c.upcast),
      to_q_(source.at("to_q"), c.query_width, c.heads * c.head_width, c.projection_bias),
      to_k_(source.at("to_k"), c.context_width, c.heads * c.head_width, c.projection_bias),
      to_v_(source.at("to_v"), c.context_width, c.heads * c.head_width, c.projection_bias),
      to_out_(source.at("to_out").at(0), c.heads * c.head_width, c.query_width) {}

at::Tensor Attention::operator()(const at::Tensor& x, const at::Tensor& context) const {
  at::Tensor q = to_q_(x), k = to_k_(context), v = to_v_(context);
  if (upcast_) {
    q = q.to(at::kFloat);
    k = k.to(at::kFloat);
    v = v.to(at::kFloat);
  }
  return to_out_(multi_head_attention(q, k, v, heads_).to(x.scalar_type()));
}

}  // namespace ringlet::nn
