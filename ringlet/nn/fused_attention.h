// Attention in fp32 on the processor, without a matrix of scores.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace ringlet::nn {

/// softmax(scale q k^T) v per head, over tiles of queries and blocks of keys (Dao et al. 2022,
/// "FlashAttention"; Dao 2023, "FlashAttention-2"). q [B, N, H*d], k and v [B, M, H*d], fp32 on the
/// CPU, M > 0 -> [B, N, H*d]. For the backward pass it keeps q, k, v, the result, and a number for
/// each query and head. A picture does not depend on its batch, nor any number on the threads.
/// Knows its gradients, not those of gradients.
at::Tensor fused_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           std::int64_t heads, double scale);

}  // namespace ringlet::nn
