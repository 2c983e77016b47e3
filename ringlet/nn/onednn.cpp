#include "ringlet/nn/onednn.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/flip.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ringlet/io/mapped_pages.h"
#include "ringlet/nn/fused_attention.h"
#include "ringlet/nn/input_gradient.h"
#include "ringlet/nn/patch_rows.h"
#include "ringlet/nn/saved_weight.h"

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

/// x W^T + b of matrices. Always this product: one that depended on the number of rows would make
/// a picture depend on the batch that it is made in.
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const Bias& bias = std::nullopt) {
  return operators().linear->call(x, weight, bias, kNoActivation, Scalars(), "");
}

/// How many rows or columns of a narrow weight, of `length` numbers each, are widened at a time:
/// they stay in the cache, and the next ones take their memory.
std::int64_t widened_at_a_time(std::int64_t length) {
  constexpr std::int64_t kNumbers = 1 << 21;
  return std::max<std::int64_t>(1, kNumbers / length);
}

/// x W^T + b with a weight that is used as a matrix [out, in], however it is stored; x [rows, in].
at::Tensor wide_product(const at::Tensor& x, const StoredWeight& weight,
                        const Bias& bias = std::nullopt) {
  const auto type = x.scalar_type();
  if (!weight.needs_widening(type)) return product(x, weight.plain().flatten(1), bias);
  const std::int64_t out = weight.size(0), in = x.size(1), length = widened_at_a_time(in);
  if (length >= out) return product(x, weight.widened(type).flatten(1), bias);
  at::Tensor y = at::empty({x.size(0), out}, x.options());
  for (std::int64_t first = 0; first < out; first += length) {
    const std::int64_t count = std::min(length, out - first);
    const Bias part = bias ? Bias(bias->narrow(0, first, count)) : std::nullopt;
    y.narrow(1, first, count).copy_(product(x, weight.widened(type, {first, count, 0, in}), part));
  }
  return y;
}

/// dy W in the same sense, dy [rows, out].
at::Tensor wide_product_back(const at::Tensor& dy, const StoredWeight& weight) {
  const auto type = dy.scalar_type();
  if (!weight.needs_widening(type)) return product(dy, weight.plain().flatten(1).t());
  const std::int64_t out = weight.size(0), in = out == 0 ? 0 : weight.numel() / out;
  const std::int64_t length = widened_at_a_time(out);
  if (length >= in) return product(dy, weight.widened(type).flatten(1).t());
  at::Tensor dx = at::empty({dy.size(0), in}, dy.options());
  for (std::int64_t first = 0; first < in; first += length) {
    const std::int64_t count = std::min(length, in - first);
    const at::Tensor part = weight.widened(type, {0, out, first, count});
    dx.narrow(1, first, count).copy_(product(dy, part.t()));
  }
  return dx;
}

/// The rows of x [..., width] as a matrix, and rows in the form of x.
at::Tensor as_rows(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }
at::Tensor in_form_of(const at::Tensor& x, const at::Tensor& rows) {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = rows.size(1);
  return rows.view(shape);
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// y = x W^T + b with dx = dy W, dW = dy^T x, db = sum dy. `learning` is the weight if it learns.
struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const StoredWeight& weight, const std::optional<at::Tensor>& learning,
                            const Bias& bias) {
    context->saved_data["bias"] = bias.has_value() && bias->requires_grad();
    if (learning)
      context->save_for_backward({*learning, x});
    else
      save_weight(*context, weight);
    // Below autograd and view tracking: callers may add to the result in place.
    at::AutoDispatchBelowADInplaceOrView below;
    return in_form_of(x, wide_product(as_rows(x), weight, bias));
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor dy = gradients.front().contiguous();
    const variable_list saved = context->get_saved_variables();
    const bool learns = !saved.empty();
    at::Tensor dx, dw, db;
    const at::Tensor rows = as_rows(dy);
    if (context->needs_input_grad(0))
      dx = in_form_of(
          dy, wide_product_back(rows, learns ? StoredWeight(saved[0]) : saved_weight(*context)));
    if (learns) dw = product(rows.t(), as_rows(saved[1]).t());
    if (context->saved_data["bias"].toBool()) db = rows.sum(0);
    return {dx, {}, dw, db};
  }
};

constexpr std::array<std::int64_t, 2> kDilation = {1, 1};

/// `weight` in the layout that oneDNN chooses for inputs of this size.
at::Tensor packed(const at::Tensor& weight, Conv2dOptions options, at::IntArrayRef input) {
  return operators().pack->call(weight, std::array{options.padding, options.padding},
                                std::array{options.stride, options.stride}, kDilation, 1, input);
}

at::Tensor convolution(const at::Tensor& x, const at::Tensor& packed, const Bias& bias,
                       Conv2dOptions options) {
  return operators().conv->call(x, packed, bias, std::array{options.padding, options.padding},
                                std::array{options.stride, options.stride}, kDilation, 1,
                                kNoActivation, Scalars(), "");
}

/// The pages of a weight that is read from a file.
void give_back(const StoredWeight& weight) {
  if (const at::Tensor& plain = weight.plain(); plain.defined())
    io::give_back_pages(plain.const_data_ptr(), plain.nbytes());
}

/// A small kernel in the layout of the backward pass, which is a convolution, too: of the output's
/// gradient with the taps in reverse, from outputs to inputs. It is laid out for the pictures that
/// come: oneDNN takes another layout for others, and would lay this one out anew in every call.
class FlippedKernel final : public torch::CustomClassHolder {
 public:
  FlippedKernel(StoredWeight weight, Conv2dOptions options)
      : weight_(std::move(weight)),
        options_{.stride = 1, .padding = weight_.size(2) - 1 - options.padding} {}

  /// Large kernels would be in memory twice.
  static bool serves(const StoredWeight& weight, Conv2dOptions options, WeightUse use) {
    constexpr std::int64_t kSmall = 1 << 19;
    return use == WeightUse::training && !weight.coded() && weight.numel() <= kSmall &&
           options.stride == 1 && options.padding < weight.size(2) &&
           weight.size(2) == weight.size(3);
  }

  at::Tensor gradient(const at::Tensor& dy) {
    return convolution(dy, layout(dy.sizes()), std::nullopt, options_);
  }

 private:
  at::Tensor layout(at::IntArrayRef shape) {
    const std::lock_guard lock(mutex_);
    if (shape != shape_) {
      layout_ = packed(weight_.widened(at::kFloat).flip({2, 3}).transpose(0, 1).contiguous(),
                       options_, shape);
      shape_ = shape.vec();
      give_back(weight_);
    }
    return layout_;
  }

  StoredWeight weight_;  ///< [out, in, k, k] as it is
  Conv2dOptions options_;
  std::mutex mutex_;
  std::vector<std::int64_t> shape_;  ///< of the gradients that the layout is for
  at::Tensor layout_;
};

/// A frozen convolution kernel in oneDNN's layout for the forward pass.
struct PackedKernel {
  StoredWeight weight;  ///< [out, in, k, k] as it is
  at::Tensor layout;    ///< of the forward pass; undefined: made in every call
  Conv2dOptions options;
  c10::intrusive_ptr<FlippedKernel> flipped;  ///< of small kernels
  bool stays = false;                         ///< the weight's pages stay in memory

  at::Tensor forward(const at::Tensor& x, const Bias& bias) const {
    if (layout.defined()) return convolution(x, layout, bias, options);
    at::Tensor y = convolution(x, weight.widened(x.scalar_type()), bias, options);
    if (!stays) give_back(weight);
    return y;
  }
};

/// Only small kernels have a layout for the backward pass: it would be the weight twice. Others are
/// laid out in every call, from their file, whose pages are given back.
struct PackedConvFunction : torch::autograd::Function<PackedConvFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const PackedKernel& kernel, const Bias& bias) {
    auto& saved = context->saved_data;
    saved["shape"] = x.sizes().vec();
    saved["stride"] = kernel.options.stride;
    saved["padding"] = kernel.options.padding;
    saved["stays"] = kernel.stays;
    if (kernel.flipped) saved["flipped"] = at::IValue::make_capsule(kernel.flipped);
    save_weight(*context, kernel.weight);
    // Below autograd and view tracking: callers may add to the result in place.
    at::AutoDispatchBelowADInplaceOrView below;
    return kernel.forward(x, bias);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    auto& saved = context->saved_data;
    const at::Tensor dy = gradients.front().contiguous(at::MemoryFormat::ChannelsLast);
    if (const auto flipped = saved.find("flipped"); flipped != saved.end())
      return {static_cast<FlippedKernel&>(*flipped->second.toCapsule()).gradient(dy), {}, {}};
    const StoredWeight& weight = saved_weight(*context);
    const at::Tensor dx =
        input_gradient(dy, weight.widened(dy.scalar_type()), saved["shape"].toIntVector(),
                       at::MemoryFormat::ChannelsLast,
                       {.stride = saved["stride"].toInt(), .padding = saved["padding"].toInt()});
    if (!saved["stays"].toBool()) give_back(weight);
    return {dx, {}, {}};
  }
};

class PackedConv2d final : public PreparedConv2d {
 public:
  PackedConv2d(const KernelSet& kernels, PackedKernel kernel)
      : PreparedConv2d(kernels), kernel_(std::move(kernel)) {}

  at::Tensor conv2d(const at::Tensor& x, const at::Tensor& bias) const override {
    return c10::GradMode::is_enabled() && x.requires_grad()
               ? PackedConvFunction::apply(x, kernel_, optional_bias(bias))
               : kernel_.forward(x, optional_bias(bias));
  }
  bool reads_weight() const override { return kernel_.stays; }
  std::int64_t backward_layout_bytes() const override {
    constexpr std::int64_t kFloat = sizeof(float);
    return kernel_.flipped ? kFloat * kernel_.weight.numel() : 0;
  }

 private:
  PackedKernel kernel_;
};

/// Pixels of a channels-last picture as rows: a view.
at::Tensor pixel_rows(const at::Tensor& x) {
  return x.permute({0, 2, 3, 1}).reshape({-1, x.size(1)});
}

/// How many patches are rows at a time: some megabytes, which are free again for the next layer.
std::int64_t patches_at_a_time(const PatchGeometry& geometry) {
  constexpr std::int64_t kNumbers = 6 << 20, kLeast = 128;
  return std::max(kLeast, kNumbers / geometry.columns());
}

/// y of patches [rows, columns] and a kernel as a matrix [out, columns].
at::Tensor patch_product(const at::Tensor& patches, const StoredWeight& weight, const Bias& bias) {
  constexpr std::int64_t kFew = 128;
  if (weight.needs_widening(patches.scalar_type()) || patches.size(0) > kFew)
    return wide_product(patches, weight, bias);
  // The second matrix is the one that oneDNN lays out: the smaller.
  const at::Tensor y = product(weight.plain().flatten(1), patches).t();
  return bias ? y + *bias : y;
}

at::Tensor conv_by_products(const at::Tensor& x, const StoredWeight& weight, const Bias& bias,
                            Conv2dOptions options) {
  const PatchGeometry geometry(x.sizes(), weight.size(2), options);
  const auto picture = [&](const at::Tensor& rows) {
    return rows.view({geometry.batch, geometry.out_height(), geometry.out_width(), -1})
        .permute({0, 3, 1, 2});
  };
  if (geometry.pixelwise()) return picture(wide_product(pixel_rows(x), weight, bias));
  const at::Tensor from = x.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor rows = at::empty({geometry.rows(), weight.size(0)}, x.options());
  const std::int64_t length = patches_at_a_time(geometry);
  for (std::int64_t first = 0; first < geometry.rows(); first += length) {
    const std::int64_t count = std::min(length, geometry.rows() - first);
    rows.narrow(0, first, count)
        .copy_(patch_product(patch_rows(from, geometry, first, count), weight, bias));
  }
  return picture(rows);
}

at::Tensor gradient_by_products(const at::Tensor& dy, const StoredWeight& weight,
                                const PatchGeometry& geometry) {
  const at::Tensor rows = pixel_rows(dy);
  if (geometry.pixelwise())
    return wide_product_back(rows, weight)
        .view({geometry.batch, geometry.height, geometry.width, geometry.channels})
        .permute({0, 3, 1, 2});
  at::Tensor dx = at::empty({geometry.batch, geometry.channels, geometry.height, geometry.width},
                            dy.options(), at::MemoryFormat::ChannelsLast)
                      .zero_();
  const std::int64_t length = patches_at_a_time(geometry);
  for (std::int64_t first = 0; first < geometry.rows(); first += length) {
    const std::int64_t count = std::min(length, geometry.rows() - first);
    add_patch_rows(dx, geometry, first, wide_product_back(rows.narrow(0, first, count), weight));
  }
  return dx;
}

struct ProductConvFunction : torch::autograd::Function<ProductConvFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const StoredWeight& weight, const Bias& bias, Conv2dOptions options,
                            bool streamed) {
    context->saved_data["shape"] = x.sizes().vec();
    context->saved_data["stride"] = options.stride;
    context->saved_data["padding"] = options.padding;
    context->saved_data["streamed"] = streamed;
    save_weight(*context, weight);
    // Below autograd and view tracking: callers may add to the result in place.
    at::AutoDispatchBelowADInplaceOrView below;
    return conv_by_products(x, weight, bias, options);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    auto& saved = context->saved_data;
    const StoredWeight& weight = saved_weight(*context);
    const Conv2dOptions options = {saved["stride"].toInt(), saved["padding"].toInt()};
    const PatchGeometry geometry(saved["shape"].toIntVector(), weight.size(2), options);
    at::Tensor dx = gradient_by_products(gradients.front(), weight, geometry);
    if (saved["streamed"].toBool()) give_back(weight);
    return {dx, {}, {}, {}, {}};
  }
};

/// A kernel as the matrix [out, in * k * k] that it is in its file, which serves the products of
/// both passes.
class ProductConv2d final : public PreparedConv2d {
 public:
  ProductConv2d(const KernelSet& kernels, const StoredWeight& weight, Conv2dOptions options,
                WeightUse use)
      : PreparedConv2d(kernels),
        weight_(as_used(weight, use)),
        options_(options),
        shared_(weight.plain().defined() && weight_.plain().is_alias_of(weight.plain())),
        streamed_(use == WeightUse::streamed) {}

  at::Tensor conv2d(const at::Tensor& x, const at::Tensor& bias) const override {
    at::Tensor y =
        c10::GradMode::is_enabled() && x.requires_grad()
            ? ProductConvFunction::apply(x, weight_, optional_bias(bias), options_, streamed_)
            : conv_by_products(x, weight_, optional_bias(bias), options_);
    if (streamed_) give_back(weight_);
    return y;
  }
  bool reads_weight() const override { return shared_ && !streamed_; }

 private:
  /// Widening a wide kernel in every call takes longer than a product with few pixels.
  static bool stays_narrow(const StoredWeight& weight, WeightUse use) {
    return weight.size(2) == 1 || use == WeightUse::streamed || use == WeightUse::narrow;
  }
  static StoredWeight as_used(const StoredWeight& weight, WeightUse use) {
    if (weight.coded()) return weight;
    const at::Tensor& plain = weight.plain();
    return (stays_narrow(weight, use) ? plain : plain.to(at::kFloat)).contiguous();
  }

  StoredWeight weight_;
  Conv2dOptions options_;
  bool shared_;    ///< with the layer's own: the file's pages are all that there is
  bool streamed_;  ///< its pages are given back after each pass
};

/// Whether a kernel is used as the matrix that it is. 1x1 kernels are. Others where a layout for
/// each pass, in every call or to be kept, would cost more than patches do: the wide ones.
bool as_matrix(const StoredWeight& weight, Conv2dOptions options, WeightUse use) {
  constexpr std::int64_t kWide = 3 << 18;
  if (weight.size(2) != weight.size(3)) return false;
  if (weight.size(2) == 1 && options.stride == 1 && options.padding == 0) return true;
  const bool packs = use == WeightUse::inference && !weight.coded();
  return !packs && weight.size(0) * weight.size(1) >= kWide;
}

class OneDnnKernels final : public KernelSet {
 public:
  std::string_view name() const override { return "onednn"; }

  at::Tensor linear(const at::Tensor& x, const StoredWeight& weight,
                    const at::Tensor& bias) const override {
    if (!c10::GradMode::is_enabled())
      return in_form_of(x, wide_product(as_rows(x), weight, optional_bias(bias)));
    if (!weight.learns())
      return LinearFunction::apply(x, weight, std::nullopt, optional_bias(bias));
    // A narrow weight that learns is widened where its gradient is recorded.
    const at::Tensor wide = weight.widened(x.scalar_type());
    return LinearFunction::apply(x, wide, wide, optional_bias(bias));
  }

  at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b) const override {
    return product(a, b);
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

  at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const AttentionOptions& options) const override {
    if (options.causal || options.mask.defined() || k.size(1) == 0)
      return KernelSet::attention(q, k, v, options);
    const auto width = static_cast<double>(q.size(2) / options.heads);
    return fused_attention(q, k, v, options.heads,
                           options.scale == 0.0 ? 1.0 / std::sqrt(width) : options.scale);
  }

  bool fuses_attention(std::int64_t, const at::TensorOptions&) const override { return true; }

  std::shared_ptr<const PreparedConv2d> prepare_conv2d(const StoredWeight& weight,
                                                       Conv2dOptions options,
                                                       WeightUse use) const override {
    if (as_matrix(weight, options, use))
      return std::make_shared<ProductConv2d>(*this, weight, options, use);
    const bool narrow = use == WeightUse::narrow || weight.coded();
    PackedKernel kernel{weight, {}, options, {}, narrow};
    // Any size will do: that of the pictures has not been seen to change the layout of this pass.
    constexpr std::int64_t kAnySide = 32;
    if (use != WeightUse::streamed && !narrow)
      kernel.layout =
          packed(weight.widened(at::kFloat), options, {1, weight.size(1), kAnySide, kAnySide});
    if (FlippedKernel::serves(weight, options, use))
      kernel.flipped = c10::make_intrusive<FlippedKernel>(weight, options);
    return std::make_shared<PackedConv2d>(*this, std::move(kernel));
  }
};

}  // namespace

const KernelSet* onednn_kernels() {
  static const OneDnnKernels kernels;
  return operators().all() ? &kernels : nullptr;
}

}  // namespace ringlet::nn
