// Multi-head attention as diffusers stores it.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::nn {

/// softmax(q k^T / sqrt(d)) v per head, without storing the score matrix where the platform has a
/// flash kernel (Vaswani et al. 2017; Dao et al. 2022).
/// q [B, N, H*d], k and v [B, M, H*d] -> [B, N, H*d]. `causal` masks later positions; `seen`, a
/// bool tensor that broadcasts to [B, H, N, M], those where it is false.
at::Tensor multi_head_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                std::int64_t heads, bool causal = false,
                                const at::Tensor& seen = {});

/// softmax(q k^T + bias) v per head, which T5 does not scale; bias broadcasts to [B, H, N, M].
at::Tensor biased_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            std::int64_t heads, const at::Tensor& bias);

/// Whether multi_head_attention keeps no scores for the backward pass, but its result: where the
/// device has a fused kernel for heads of this width, in the options' type. Computes a small one.
bool attention_is_fused(std::int64_t head_width, const at::TensorOptions& options);

struct AttentionConfig {
  std::int64_t query_width;
  std::int64_t
      context_width;  ///< width of keys' and values' input; = query_width for self-attention
  std::int64_t heads;
  std::int64_t head_width;
  bool projection_bias = false;  ///< bias of to_q, to_k, to_v
  bool upcast = false;           ///< scores and softmax in fp32 whatever the compute type
};

/// to_q, to_k, to_v, attention, to_out.0.
class Attention {
 public:
  Attention(const WeightSource& source, const AttentionConfig& config);

  /// x [B, N, query_width], context [B, M, context_width] -> [B, N, query_width].
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& context) const;

 private:
  std::int64_t heads_;
  bool upcast_;
  Linear to_q_, to_k_, to_v_, to_out_;
};

}  // namespace ringlet::nn
