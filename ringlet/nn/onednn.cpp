#include "ringlet/nn/onednn.h"

#include <array>
#include <optional>
#include <string_view>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/flip.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ringlet/core/memory_use.h"
#include "ringlet/io/mapped_pages.h"

namespace ringlet::nn::onednn {
namespace {

using Scalars = c10::List<std::optional<at::Scalar>>;
using Bias = std::optional<at::Tensor>;
using LinearOperator = at::Tensor(const at::Tensor&, const at::Tensor&, const Bias&,
                                  std::string_view, Scalars, std::optional<std::string_view>);
using PackOperator = at::Tensor(const at::Tensor&, at::IntArrayRef, at::IntArrayRef,
                                at::IntArrayRef, std::int64_t, at::OptionalIntArrayRef);
using ConvOperator = at::Tensor(const at::Tensor&, const at::Tensor&, const Bias&, at::IntArrayRef,
                                at::IntArrayRef, at::IntArrayRef, std::int64_t, std::string_view,
                                Scalars, std::optional<std::string_view>);

/// The operators have no header; they are looked up by name, once.
struct Operators {
  std::optional<c10::TypedOperatorHandle<LinearOperator>> linear;
  std::optional<c10::TypedOperatorHandle<PackOperator>> pack;
  std::optional<c10::TypedOperatorHandle<ConvOperator>> conv;

  bool all() const { return linear && pack && conv; }
};

template <class Signature>
std::optional<c10::TypedOperatorHandle<Signature>> find(const char* name) {
  const auto schema = c10::Dispatcher::singleton().findSchema({name, ""});
  if (!schema) return std::nullopt;
  return schema->typed<Signature>();
}

const Operators& operators() {
  static const Operators found = {find<LinearOperator>("mkldnn::_linear_pointwise"),
                                  find<PackOperator>("mkldnn::_reorder_convolution_weight"),
                                  find<ConvOperator>("mkldnn::_convolution_pointwise")};
  return found;
}

constexpr std::string_view kNoActivation = "none";

Bias optional_bias(const at::Tensor& bias) { return bias.defined() ? Bias(bias) : std::nullopt; }

at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const Bias& bias = std::nullopt) {
  return operators().linear->call(x, weight, bias, kNoActivation, Scalars(), "");
}

/// The kernel of the convolution that takes a gradient back.
at::Tensor turned_round(const at::Tensor& weight, at::ScalarType type) {
  return weight.transpose(0, 1).flip({2, 3}).to(type).contiguous();
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// y = x W^T + b with dx = dy W, dW = dy^T x, db = sum dy.
struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const Bias& bias) {
    const bool learns = weight.requires_grad();
    context->saved_data["bias"] = bias.has_value() && bias->requires_grad();
    context->save_for_backward({weight, learns ? x : at::Tensor()});
    // Below autograd and view tracking: callers may add to the result in place.
    at::AutoDispatchBelowADInplaceOrView below;
    return product(x, weight, bias);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor dy = gradients.front().contiguous();
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &weight = saved[0], &x = saved[1];
    at::Tensor dx, dw, db;
    if (context->needs_input_grad(0)) dx = product(dy, weight.t());
    const at::Tensor rows = dy.flatten(0, -2);
    if (x.defined()) dw = product(rows.t(), x.flatten(0, -2).t());
    if (context->saved_data["bias"].toBool()) db = rows.sum(0);
    return {dx, dw, db};
  }
};

constexpr std::array<std::int64_t, 2> kDilation = {1, 1};

/// `weight` in the layout that oneDNN chooses for inputs of this size.
at::Tensor packed(const at::Tensor& weight, std::int64_t stride, std::int64_t padding,
                  at::IntArrayRef input) {
  return operators().pack->call(weight, std::array{padding, padding}, std::array{stride, stride},
                                kDilation, 1, input);
}

at::Tensor convolution(const at::Tensor& x, const at::Tensor& packed, const Bias& bias,
                       std::int64_t stride, std::int64_t padding) {
  return operators().conv->call(x, packed, bias, std::array{padding, padding},
                                std::array{stride, stride}, kDilation, 1, kNoActivation, Scalars(),
                                "");
}

struct ConvFunction : torch::autograd::Function<ConvFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const PackedConv2d& kernel, const Bias& bias) {
    context->saved_data["shape"] = x.sizes().vec();
    context->saved_data["stride"] = kernel.stride;
    context->saved_data["padding"] = kernel.padding;
    // Kept as data: version counting of saved variables knows no oneDNN layouts.
    context->saved_data["weight"] = kernel.weight;
    if (kernel.backward)
      context->saved_data["backward"] = c10::IValue::make_capsule(kernel.backward);
    // Below autograd and view tracking: callers may add to the result in place.
    at::AutoDispatchBelowADInplaceOrView below;
    return convolution(x, kernel.forward, bias, kernel.stride, kernel.padding);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    auto& saved = context->saved_data;
    const at::Tensor dy = gradients.front().contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor& weight = saved["weight"].toTensor();
    const std::int64_t stride = saved["stride"].toInt(), padding = saved["padding"].toInt();
    if (saved.find("backward") != saved.end()) {
      const auto kernel =
          c10::static_intrusive_pointer_cast<BackwardKernel>(saved["backward"].toCapsule());
      const std::int64_t border = weight.size(2) - 1 - padding;
      return {convolution(dy, kernel->laid_out_for(dy, border), std::nullopt, 1, border), {}, {}};
    }
    // Only the input's shape matters for its gradient; this memory is never touched.
    const at::Tensor stand_in =
        at::empty(saved["shape"].toIntVector(), dy.options(), at::MemoryFormat::ChannelsLast);
    const auto result = at::convolution_backward(
        dy, stand_in, weight.to(dy.scalar_type()), std::nullopt, {stride, stride},
        {padding, padding}, kDilation,
        /*transposed=*/false, /*output_padding=*/{0, 0}, /*groups=*/1, {true, false, false});
    return {std::get<0>(result), {}, {}};
  }
};

}  // namespace

const at::Tensor& BackwardKernel::laid_out_for(const at::Tensor& gradient, std::int64_t padding) {
  std::call_once(once_, [&] {
    packed_ = packed(turned_round(weight_, gradient.scalar_type()), 1, padding, gradient.sizes());
    // Both layouts stand for the weight now: its file need not be in memory, too, and the copies
    // that led here leave holes between layouts that stay.
    io::give_back_pages(weight_.const_data_ptr(), weight_.nbytes());
    return_free_memory();
  });
  return packed_;
}

bool takes(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && operators().all();
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return c10::GradMode::is_enabled() ? LinearFunction::apply(x, weight, optional_bias(bias))
                                     : product(x, weight, optional_bias(bias));
}

PackedConv2d pack_conv2d(const at::Tensor& weight, std::int64_t stride, std::int64_t padding,
                         bool for_training) {
  PackedConv2d kernel{weight, {}, {}, stride, padding};
  if (!operators().all()) return kernel;
  // Any size will do: that of the pictures has not been seen to change the layout of this pass.
  kernel.forward = packed(weight.to(at::kFloat), stride, padding, {1, weight.size(1), 32, 32});
  if (for_training && stride == 1) kernel.backward = c10::make_intrusive<BackwardKernel>(weight);
  return kernel;
}

at::Tensor conv2d(const at::Tensor& x, const PackedConv2d& kernel, const at::Tensor& bias) {
  return c10::GradMode::is_enabled() && x.requires_grad()
             ? ConvFunction::apply(x, kernel, optional_bias(bias))
             : convolution(x, kernel.forward, optional_bias(bias), kernel.stride, kernel.padding);
}

}  // namespace ringlet::nn::onednn
