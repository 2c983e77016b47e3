#include "ringlet/nn/onednn.h"

#include <array>
#include <optional>
#include <string_view>

#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/GradMode.h>

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

}  // namespace

bool takes(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && !c10::GradMode::is_enabled() &&
         operators().all();
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return operators().linear->call(x, weight, optional_bias(bias), kNoActivation, Scalars(), "");
}

at::Tensor pack_conv2d(const at::Tensor& weight, std::int64_t stride, std::int64_t padding) {
  if (!operators().all()) return {};
  constexpr std::array<std::int64_t, 2> kDilation = {1, 1};
  // The layout does not depend on the size of the pictures, but oneDNN wants one to choose it for.
  const std::array<std::int64_t, 4> typical_input = {1, weight.size(1), 32, 32};
  return operators().pack->call(weight, std::array{padding, padding}, std::array{stride, stride},
                                kDilation, 1, typical_input);
}

at::Tensor conv2d(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                  std::int64_t stride, std::int64_t padding) {
  constexpr std::array<std::int64_t, 2> kDilation = {1, 1};
  return operators().conv->call(x, packed, optional_bias(bias), std::array{padding, padding},
                                std::array{stride, stride}, kDilation, 1, kNoActivation, Scalars(),
                                "");
}

}  // namespace ringlet::nn::onednn
