#include "ringlet/diffusion/guidance.h"

#include <utility>
#include <vector>

#include <ATen/ops/cat.h>
#include <ATen/ops/std.h>

namespace ringlet::diffusion {

at::Tensor guide(const at::Tensor& unconditional, const at::Tensor& conditional,
                 const Guidance& guidance) {
  const at::Tensor guided = unconditional + guidance.scale * (conditional - unconditional);
  if (guidance.rescale == 0.0) return guided;
  const auto deviation = [](const at::Tensor& x) {
    return x.std({1, 2, 3}, /*unbiased=*/true, /*keepdim=*/true);
  };
  const at::Tensor matched = guided * (deviation(conditional) / deviation(guided));
  return guidance.rescale * matched + (1.0 - guidance.rescale) * guided;
}

Denoiser classifier_free_guidance(Denoiser both, Guidance guidance) {
  return [both = std::move(both), guidance](const at::Tensor& x, const NoiseLevel& level) {
    const std::vector<at::Tensor> halves = both(at::cat({x, x}), level).chunk(2);
    return guide(halves[0], halves[1], guidance);
  };
}

}  // namespace ringlet::diffusion
