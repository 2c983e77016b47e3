#include "ringlet/adapt/transform_residual.h"

#include <utility>

#include <c10/core/GradMode.h>

namespace ringlet::adapt {
namespace {

/// a + s (b - a), exactly b for s = 1.
at::Tensor interpolate(const at::Tensor& a, const at::Tensor& b, double s) {
  return s == 1.0 ? b : a + s * (b - a);
}

}  // namespace

TransformResidual::TransformResidual(const LayerShape& shape, std::unique_ptr<Transform> transform,
                                     std::unique_ptr<Residual> residual, std::string spec)
    : shape_(shape),
      transform_(std::move(transform)),
      residual_(std::move(residual)),
      spec_(std::move(spec)) {}

at::Tensor TransformResidual::transformed_input(const at::Tensor& x) const {
  if (!shape_.convolution) return interpolate(x, transform_->forward(x), strength);
  // Input channels are the axis that T mixes; last in memory, since activations are channels-last.
  const at::Tensor channels_last = x.permute({0, 2, 3, 1});
  return interpolate(x, transform_->forward(channels_last).permute({0, 3, 1, 2}), strength);
}

at::Tensor TransformResidual::transformed_weight(const at::Tensor& w0) const {
  if (!shape_.convolution) return interpolate(w0, transform_->right_multiply(w0), strength);
  const at::Tensor rows = w0.permute({0, 2, 3, 1});
  return interpolate(w0, transform_->right_multiply(rows).permute({0, 3, 1, 2}), strength);
}

at::Tensor TransformResidual::forward(const nn::Layer& layer, const at::Tensor& x) const {
  if (strength == 0.0) return layer.base(x);
  at::Tensor y;
  if (!transform_) {
    y = layer.base(x);
  } else {
    const std::int64_t tokens = x.numel() / shape_.in;
    const Way chosen =
        way ? *way : choose_way(*transform_, shape_, tokens, c10::GradMode::is_enabled());
    y = chosen == Way::through_input
            ? layer.base(transformed_input(x))
            : layer.apply(transformed_weight(layer.weight().to(x.scalar_type())), x);
  }
  return residual_ ? residual_->add_to(y, strength, layer, x) : y;
}

at::Tensor TransformResidual::weight(const at::Tensor& w0) const {
  // In fp32 at least: a merged half-precision weight is rounded once.
  const at::Tensor wide = w0.scalar_type() == at::kDouble ? w0 : w0.to(at::kFloat);
  at::Tensor w = transform_ ? transformed_weight(wide) : wide;
  if (residual_) w = w + strength * residual_->weight().to(w.scalar_type());
  return w.to(w0.scalar_type());
}

Parameters TransformResidual::parameters() const {
  Parameters named;
  const auto add = [&named](const char* part, const Parameters& parameters) {
    for (const auto& [name, tensor] : parameters)
      named.emplace_back(std::string(part) + "." + name, tensor);
  };
  if (transform_) add("transform", transform_->parameters());
  if (residual_) add("residual", residual_->parameters());
  return named;
}

}  // namespace ringlet::adapt
