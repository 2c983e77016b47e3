#include "ringlet/nn/onednn.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/flip.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ringlet/core/memory_use.h"
#include "ringlet/io/mapped_pages.h"

namespace ringlet::nn {
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

/// The kernel of a convolution's backward pass, itself a convolution with the kernel turned round
/// and its channels exchanged. It is laid out for the size of the first gradient that comes:
/// oneDNN's blocks depend on it for some widths, and where they are others it lays out anew in
/// every call.
class BackwardKernel final : public torch::CustomClassHolder {
 public:
  explicit BackwardKernel(at::Tensor weight) : weight_(std::move(weight)) {}

  const at::Tensor& laid_out_for(const at::Tensor& gradient, std::int64_t padding) {
    std::call_once(once_, [&] {
      packed_ = packed(turned_round(weight_, gradient.scalar_type()), 1, padding, gradient.sizes());
      // Both layouts stand for the weight now: its file need not be in memory, too, and the copies
      // that led here leave holes between layouts that stay.
      io::give_back_pages(weight_.const_data_ptr(), weight_.nbytes());
      return_free_memory();
    });
    return packed_;
  }

 private:
  at::Tensor weight_;  ///< that of the forward pass
  std::once_flag once_;
  at::Tensor packed_;
};

/// A frozen convolution kernel laid out for oneDNN.
struct PackedKernel {
  at::Tensor weight;                            ///< [out, in, k, k] as it is
  at::Tensor forward;                           ///< in oneDNN's layout
  c10::intrusive_ptr<BackwardKernel> backward;  ///< null: `weight` is laid out in every pass
  Conv2dOptions options;
};

struct ConvFunction : torch::autograd::Function<ConvFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const PackedKernel& kernel, const Bias& bias) {
    context->saved_data["shape"] = x.sizes().vec();
    context->saved_data["stride"] = kernel.options.stride;
    context->saved_data["padding"] = kernel.options.padding;
    // Kept as data: version counting of saved variables knows no oneDNN layouts.
    context->saved_data["weight"] = kernel.weight;
    if (kernel.backward)
      context->saved_data["backward"] = c10::IValue::make_capsule(kernel.backward);
    // Below autograd and view tracking: callers may add to the result in place.
    at::AutoDispatchBelowADInplaceOrView below;
    return convolution(x, kernel.forward, bias, kernel.options.stride, kernel.options.padding);
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

class OneDnnConv2d final : public PreparedConv2d {
 public:
  OneDnnConv2d(const KernelSet& kernels, PackedKernel kernel)
      : PreparedConv2d(kernels), kernel_(std::move(kernel)) {}

  at::Tensor conv2d(const at::Tensor& x, const at::Tensor& bias) const override {
    return c10::GradMode::is_enabled() && x.requires_grad()
               ? ConvFunction::apply(x, kernel_, optional_bias(bias))
               : convolution(x, kernel_.forward, optional_bias(bias), kernel_.options.stride,
                             kernel_.options.padding);
  }

 private:
  PackedKernel kernel_;
};

class OneDnnKernels final : public KernelSet {
 public:
  std::string_view name() const override { return "onednn"; }

  at::Tensor linear(const at::Tensor& x, const at::Tensor& weight,
                    const at::Tensor& bias) const override {
    return c10::GradMode::is_enabled() ? LinearFunction::apply(x, weight, optional_bias(bias))
                                       : product(x, weight, optional_bias(bias));
  }

  at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b) const override {
    // Twice as fast as MKL on some processors, but takes some microseconds to start.
    constexpr std::int64_t kLarge = 1 << 20;
    const bool large = a.size(0) * a.size(1) * b.size(0) > kLarge;
    return large ? linear(a, b, {}) : KernelSet::matrix_product(a, b);
  }

  void add_product(at::Tensor& sum, double s, const at::Tensor& a,
                   const at::Tensor& b) const override {
    constexpr std::int64_t kWide = 16, kPiece = 1 << 18;
    if (b.size(1) < kWide) return KernelSet::add_product(sum, s, a, b);
    // The faster product has no sum; in pieces its result stays in the cache.
    const std::int64_t length = std::max<std::int64_t>(1, kPiece / b.size(0));
    for (std::int64_t first = 0; first < sum.size(0); first += length) {
      const std::int64_t count = std::min(length, sum.size(0) - first);
      sum.narrow(0, first, count).add_(matrix_product(a.narrow(0, first, count), b), s);
    }
  }

  std::shared_ptr<const PreparedConv2d> prepare_conv2d(const at::Tensor& weight,
                                                       Conv2dOptions options,
                                                       bool for_training) const override {
    PackedKernel kernel{weight, {}, {}, options};
    // Any size will do: that of the pictures has not been seen to change the layout of this pass.
    kernel.forward =
        packed(weight.to(at::kFloat), options.stride, options.padding, {1, weight.size(1), 32, 32});
    if (for_training && options.stride == 1)
      kernel.backward = c10::make_intrusive<BackwardKernel>(weight);
    return std::make_shared<OneDnnConv2d>(*this, std::move(kernel));
  }
};

}  // namespace

const KernelSet* onednn_kernels() {
  static const OneDnnKernels kernels;
  return operators().all() ? &kernels : nullptr;
}

}  // namespace ringlet::nn
