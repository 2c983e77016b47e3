// What diffusion networks know of time and of other numbers: sinusoids, and two linear layers.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

/// Sinusoidal embedding (Vaswani et al. 2017) of numbers t [N] -> [N, width], in fp32.
at::Tensor sinusoidal_embedding(const at::Tensor& t, std::int64_t width, bool flip_sin_to_cos,
                                double freq_shift);

/// Two linear layers with SiLU between them.
class TimestepEmbedding {
 public:
  TimestepEmbedding(const nn::WeightSource& source, std::int64_t in, std::int64_t out);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  nn::Linear linear_1_, linear_2_;
};

}  // namespace ringlet::models
