// The layer norm of adaptive transformers.
#pragma once

#include <ATen/core/Tensor.h>

namespace ringlet::nn {

/// layer_norm(x) (1 + scale) + shift over the last axis of x [B, N, width], without parameters;
/// scale and shift [B, 1, width] (Peebles and Xie 2023, "Scalable Diffusion Models with
/// Transformers", §3.2). For the backward pass x, a mean and a deviation per token and the scale
/// are kept: no normalised x, even where scale and shift learn.
at::Tensor modulated_layer_norm(const at::Tensor& x, const at::Tensor& scale,
                                const at::Tensor& shift, double epsilon = 1e-6);

}  // namespace ringlet::nn
