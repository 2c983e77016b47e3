#include "ringlet/nn/rms_norm.h"

#include <utility>
#include <vector>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/square.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

namespace ringlet::nn {
namespace {

at::Tensor inverse_root_mean_square(const at::Tensor& x, double epsilon) {
  return at::rsqrt(at::mean(at::square(x), -1, /*keepdim=*/true) + epsilon);
}

at::Tensor normalised(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scaled = wide * inverse_root_mean_square(wide, epsilon);
  return (scaled * weight.to(at::kFloat)).to(x.scalar_type());
}

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, double epsilon) {
    context->save_for_backward({x, weight});
    context->saved_data["epsilon"] = epsilon;
    at::AutoDispatchBelowADInplaceOrView below;
    return normalised(x, weight, epsilon);
  }

  /// Of operations that autograd knows, so that a gradient of this gradient can be asked for.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const at::Tensor wide = x.to(at::kFloat), dy = gradients.front().to(at::kFloat);
    const at::Tensor factor =
        inverse_root_mean_square(wide, context->saved_data["epsilon"].toDouble());
    const at::Tensor unit = wide * factor;
    at::Tensor dx, dweight;
    if (context->needs_input_grad(0)) {
      const at::Tensor dunit = dy * weight.to(at::kFloat);
      const at::Tensor along = at::mean(dunit * unit, -1, /*keepdim=*/true);
      dx = (factor * (dunit - unit * along)).to(x.scalar_type());
    }
    if (context->needs_input_grad(1))
      dweight = (dy * unit).sum_to_size(weight.sizes()).to(weight.scalar_type());
    return {dx, dweight, at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  const bool recorded =
      c10::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
  return recorded ? RmsNormFunction::apply(x, weight, epsilon) : normalised(x, weight, epsilon);
}

RmsNorm::RmsNorm(const WeightSource& source, std::int64_t channels, double epsilon)
    : weight_(source.get("weight", {channels}, Init::constant(1.0))), epsilon_(epsilon) {}

at::Tensor RmsNorm::operator()(const at::Tensor& x) const { return rms_norm(x, weight_, epsilon_); }

}  // namespace ringlet::nn
