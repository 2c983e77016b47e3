#include "ringlet/nn/attention.h"

#include "ringlet/nn/kernels.h"
#include "ringlet/nn/layer_scope.h"

namespace ringlet::nn {

namespace {

at::Tensor attention_of_heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const AttentionOptions& options) {
  LayerScope scope(LayerKind::attention);
  if (scope.observed()) scope.set_work(attention_work(q, k, v));
  return kernels_for(q).attention(q, k, v, options);
}

}  // namespace

at::Tensor multi_head_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                std::int64_t heads, bool causal, const at::Tensor& seen) {
  return attention_of_heads(q, k, v, {.heads = heads, .causal = causal, .mask = seen});
}

at::Tensor biased_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            std::int64_t heads, const at::Tensor& bias) {
  return attention_of_heads(q, k, v, {.heads = heads, .mask = bias, .scale = 1.0});
}

bool attention_is_fused(std::int64_t head_width, const at::TensorOptions& options) {
  return kernels_for(options.device(), c10::typeMetaToScalarType(options.dtype()))
      .fuses_attention(head_width, options);
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
