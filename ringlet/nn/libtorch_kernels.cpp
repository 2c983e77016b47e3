// LibTorch's kernel set: any device, any type.
#include <array>
#include <optional>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function.h>

#include "ringlet/nn/input_gradient.h"
#include "ringlet/nn/kernels.h"
#include "ringlet/nn/saved_weight.h"

namespace ringlet::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The product with a frozen weight that has to be widened. LibTorch's own would keep the wide
/// copy; this widens once more in the backward pass. Gradients of gradients go through LibTorch's
/// functions.
struct WideningLinear : torch::autograd::Function<WideningLinear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const StoredWeight& weight, const std::optional<at::Tensor>& bias) {
    save_weight(*context, weight);
    // Below autograd and view tracking: callers may add to the result in place.
    at::AutoDispatchBelowADInplaceOrView below;
    return at::linear(x, weight.widened(x.scalar_type()), bias);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor& dy = gradients.front();
    return {at::matmul(dy, saved_weight(*context).widened(dy.scalar_type())), {}, {}};
  }
};

/// The convolution with a frozen kernel. LibTorch's own keeps its input for the gradient of the
/// weight, whether or not there will be one. This keeps the weight alone, and computes both passes
/// by LibTorch's functions; gradients of gradients go through theirs.
struct FrozenConvolution : torch::autograd::Function<FrozenConvolution> {
  static constexpr std::array<std::int64_t, 2> kDilation = {1, 1}, kNoOutputPadding = {0, 0};

  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const StoredWeight& weight, const std::optional<at::Tensor>& bias,
                            Conv2dOptions options) {
    auto& saved = context->saved_data;
    saved["shape"] = x.sizes().vec();
    saved["format"] = static_cast<std::int64_t>(x.suggest_memory_format());
    saved["stride"] = options.stride;
    saved["padding"] = options.padding;
    save_weight(*context, weight);
    // Below autograd and view tracking: callers may add to the result in place.
    at::AutoDispatchBelowADInplaceOrView below;
    return at::convolution(x, weight.widened(x.scalar_type()), bias,
                           std::array{options.stride, options.stride},
                           std::array{options.padding, options.padding}, kDilation,
                           /*transposed=*/false, kNoOutputPadding, /*groups=*/1);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    auto& saved = context->saved_data;
    const at::Tensor& dy = gradients.front();
    const at::Tensor dx = input_gradient(
        dy, saved_weight(*context).widened(dy.scalar_type()), saved["shape"].toIntVector(),
        static_cast<at::MemoryFormat>(saved["format"].toInt()),
        {.stride = saved["stride"].toInt(), .padding = saved["padding"].toInt()});
    return {dx, {}, {}, {}};
  }
};

/// Whether a gradient of x alone is recorded. The bias of a frozen weight may learn all the same:
/// its gradient is a sum that needs nothing kept.
bool only_input_learns(const at::Tensor& x, const StoredWeight& weight) {
  return c10::GradMode::is_enabled() && x.requires_grad() && !weight.learns();
}

std::optional<at::Tensor> if_defined(const at::Tensor& bias) {
  return bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
}

bool bias_learns(const at::Tensor& bias) { return bias.defined() && bias.requires_grad(); }

}  // namespace

std::string_view KernelSet::name() const { return "libtorch"; }

at::Tensor KernelSet::linear(const at::Tensor& x, const StoredWeight& weight,
                             const at::Tensor& bias) const {
  if (!only_input_learns(x, weight) || !weight.needs_widening(x.scalar_type()))
    return at::linear(x, weight.widened(x.scalar_type()), if_defined(bias));
  if (bias_learns(bias)) return WideningLinear::apply(x, weight, std::nullopt) + bias;
  return WideningLinear::apply(x, weight, if_defined(bias));
}

at::Tensor KernelSet::matrix_product(const at::Tensor& a, const at::Tensor& b) const {
  return at::mm(a, b.t());
}

void KernelSet::add_product(at::Tensor& sum, double s, const at::Tensor& a,
                            const at::Tensor& b) const {
  sum.addmm_(a, b.t(), 1, s);
}

at::Tensor KernelSet::conv2d(const at::Tensor& x, const StoredWeight& weight,
                             const at::Tensor& bias, Conv2dOptions options) const {
  if (!only_input_learns(x, weight))
    return at::conv2d(x, weight.widened(x.scalar_type()), if_defined(bias), options.stride,
                      options.padding);
  if (bias_learns(bias))
    return FrozenConvolution::apply(x, weight, std::nullopt, options) + bias.view({-1, 1, 1});
  return FrozenConvolution::apply(x, weight, if_defined(bias), options);
}

at::Tensor KernelSet::attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options) const {
  const auto split = [&options](const at::Tensor& x) {  // [B, N, H*d] -> [B, H, N, d], a view
    return x.unflatten(-1, {options.heads, -1}).transpose(1, 2);
  };
  const std::optional<double> scale =
      options.scale == 0.0 ? std::nullopt : std::optional(options.scale);
  return at::scaled_dot_product_attention(split(q), split(k), split(v), if_defined(options.mask),
                                          0.0, options.causal, scale)
      .transpose(1, 2)
      .flatten(2);
}

bool KernelSet::fuses_attention(std::int64_t head_width, const at::TensorOptions& options) const {
  constexpr std::int64_t kTokens = 16;
  const at::AutoGradMode recording(true);
  const at::Tensor x = at::zeros({1, 1, kTokens, head_width}, options).set_requires_grad(true);
  const at::Tensor y = at::scaled_dot_product_attention(x, x, x);
  return y.grad_fn() && y.grad_fn()->name().starts_with("ScaledDotProduct");
}

std::shared_ptr<const PreparedConv2d> KernelSet::prepare_conv2d(const StoredWeight& weight,
                                                                Conv2dOptions options,
                                                                WeightUse use) const {
  static_cast<void>(weight);
  static_cast<void>(options);
  static_cast<void>(use);
  return nullptr;
}

}  // namespace ringlet::nn
