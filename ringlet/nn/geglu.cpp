#include "ringlet/nn/geglu.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/mul.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ringlet/nn/layer_scope.h"

namespace ringlet::nn {
namespace {

at::Tensor half(const at::Tensor& both, std::int64_t which) {
  const std::int64_t length = both.size(-1) / 2;
  return both.narrow(-1, which * length, length);
}

at::Tensor product_of_halves(const at::Tensor& both) {
  return at::gelu(half(both, 1)).mul_(half(both, 0));
}

struct GegluFunction : torch::autograd::Function<GegluFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& both) {
    context->save_for_backward({both});
    at::AutoDispatchBelowADInplaceOrView below;
    return product_of_halves(both);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const at::Tensor both = context->get_saved_variables().front();
    const at::Tensor &dy = gradients.front(), value = half(both, 0), gate = half(both, 1);
    if (c10::GradMode::is_enabled())  // a gradient of this gradient is asked for
      return {at::cat({dy * at::gelu(gate), at::gelu_backward(dy * value, gate)}, -1)};
    at::Tensor gradient = at::empty_like(both);
    at::Tensor dvalue = half(gradient, 0), dgate = half(gradient, 1);
    at::gelu_out(dvalue, gate).mul_(dy);
    at::gelu_backward_out(dgate, dy * value, gate);
    return {gradient};
  }
};

}  // namespace

at::Tensor geglu(const at::Tensor& value_and_gate) {
  const LayerScope scope(LayerKind::activation);
  return c10::GradMode::is_enabled() && value_and_gate.requires_grad()
             ? GegluFunction::apply(value_and_gate)
             : product_of_halves(value_and_gate);
}

}  // namespace ringlet::nn
