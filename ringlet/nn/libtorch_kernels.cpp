// LibTorch's kernel set: any device, any type.
#include <array>
#include <optional>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ringlet/nn/input_gradient.h"
#include "ringlet/nn/kernels.h"

namespace ringlet::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The convolution with a frozen kernel. LibTorch's own keeps its input for the gradient of the
/// weight, whether or not there will be one. This keeps the weight alone, and computes both passes
/// by LibTorch's functions; gradients of gradients go through theirs.
struct FrozenConvolution : torch::autograd::Function<FrozenConvolution> {
  static constexpr std::array<std::int64_t, 2> kDilation = {1, 1}, kNoOutputPadding = {0, 0};

  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, Conv2dOptions options) {
    auto& saved = context->saved_data;
    saved["shape"] = x.sizes().vec();
    saved["format"] = static_cast<std::int64_t>(x.suggest_memory_format());
    saved["stride"] = options.stride;
    saved["padding"] = options.padding;
    context->save_for_backward({weight});
    // Below autograd and view tracking: callers may add to the result in place.
    at::AutoDispatchBelowADInplaceOrView below;
    return at::convolution(x, weight, bias, std::array{options.stride, options.stride},
                           std::array{options.padding, options.padding}, kDilation,
                           /*transposed=*/false, kNoOutputPadding, /*groups=*/1);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    auto& saved = context->saved_data;
    const at::Tensor dx = input_gradient(
        gradients.front(), context->get_saved_variables().front(), saved["shape"].toIntVector(),
        static_cast<at::MemoryFormat>(saved["format"].toInt()),
        {.stride = saved["stride"].toInt(), .padding = saved["padding"].toInt()});
    return {dx, {}, {}, {}};
  }
};

}  // namespace

std::string_view KernelSet::name() const { return "libtorch"; }

at::Tensor KernelSet::linear(const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& bias) const {
  return at::linear(x, weight.to(x.scalar_type()), bias);
}

at::Tensor KernelSet::matrix_product(const at::Tensor& a, const at::Tensor& b) const {
  return at::mm(a, b.t());
}

void KernelSet::add_product(at::Tensor& sum, double s, const at::Tensor& a,
                            const at::Tensor& b) const {
  sum.addmm_(a, b.t(), 1, s);
}

at::Tensor KernelSet::conv2d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             Conv2dOptions options) const {
  const bool learns = weight.requires_grad() || (bias.defined() && bias.requires_grad());
  if (!c10::GradMode::is_enabled() || !x.requires_grad() || learns)
    return at::conv2d(x, weight, bias, options.stride, options.padding);
  return FrozenConvolution::apply(
      x, weight, bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt, options);
}

std::shared_ptr<const PreparedConv2d> KernelSet::prepare_conv2d(const at::Tensor& weight,
                                                                Conv2dOptions options,
                                                                WeightUse use) const {
  static_cast<void>(weight);
  static_cast<void>(options);
  static_cast<void>(use);
  return nullptr;
}

}  // namespace ringlet::nn
