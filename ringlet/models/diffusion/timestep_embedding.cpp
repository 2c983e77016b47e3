#include "ringlet/models/diffusion/timestep_embedding.h"

#include <cmath>

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>

#include "ringlet/nn/norm.h"

namespace ringlet::models {

at::Tensor sinusoidal_embedding(const at::Tensor& t, std::int64_t width, bool flip_sin_to_cos,
                                double freq_shift) {
  const std::int64_t half = width / 2;
  const double step = -std::log(10000.0) / (static_cast<double>(half) - freq_shift);
  const at::Tensor frequencies =
      at::exp(at::arange(half, at::TensorOptions(at::kFloat).device(t.device())) * step);
  const at::Tensor angles = t.to(at::kFloat).unsqueeze(-1) * frequencies;
  return flip_sin_to_cos ? at::cat({angles.cos(), angles.sin()}, -1)
                         : at::cat({angles.sin(), angles.cos()}, -1);
}

TimestepEmbedding::TimestepEmbedding(const nn::WeightSource& s, std::int64_t in, std::int64_t out)
    : linear_1_(s.at("linear_1"), in, out), linear_2_(s.at("linear_2"), out, out) {}

at::Tensor TimestepEmbedding::forward(const at::Tensor& x) const {
  return linear_2_(nn::silu(linear_1_(x)));
}

}  // namespace ringlet::models
