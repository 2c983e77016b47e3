#include "ringlet/nn/modulated_norm.h"

#include <tuple>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ringlet/nn/layer_scope.h"

namespace ringlet::nn {
namespace {

struct Normed {
  at::Tensor y, mean, inverse_deviation;
};

/// y is written over the normalised x.
Normed modulated(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift,
                 double epsilon) {
  auto [y, mean, inverse_deviation] = at::native_layer_norm(x, {x.size(-1)}, {}, {}, epsilon);
  at::addcmul_out(y, shift, y, 1.0 + scale);
  return {y, mean, inverse_deviation};
}

struct ModulatedNormFunction : torch::autograd::Function<ModulatedNormFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& scale, const at::Tensor& shift, double epsilon) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Normed normed = modulated(x, scale, shift, epsilon);
    context->save_for_backward({x, scale, normed.mean, normed.inverse_deviation});
    context->saved_data["epsilon"] = epsilon;
    return normed.y;
  }

  /// Of operations that autograd knows, so that a gradient of this gradient can be asked for.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &scale = saved[1], &dy = gradients.front();
    at::Tensor dx, dscale, dshift;
    if (context->needs_input_grad(0))
      dx = std::get<0>(at::native_layer_norm_backward(dy * (1.0 + scale), x, {x.size(-1)}, saved[2],
                                                      saved[3], {}, {}, {true, false, false}));
    if (context->needs_input_grad(1)) {
      const double epsilon = context->saved_data["epsilon"].toDouble();
      dscale = (dy * at::layer_norm(x, {x.size(-1)}, {}, {}, epsilon)).sum_to_size(scale.sizes());
    }
    if (context->needs_input_grad(2)) dshift = dy.sum_to_size(scale.sizes());
    return {dx, dscale, dshift, at::Tensor()};
  }
};

}  // namespace

at::Tensor modulated_layer_norm(const at::Tensor& x, const at::Tensor& scale,
                                const at::Tensor& shift, double epsilon) {
  const LayerScope scope(LayerKind::norm);
  const bool recorded = c10::GradMode::is_enabled() &&
                        (x.requires_grad() || scale.requires_grad() || shift.requires_grad());
  return recorded ? ModulatedNormFunction::apply(x, scale, shift, epsilon)
                  : modulated(x, scale, shift, epsilon).y;
}

}  // namespace ringlet::nn
