#include "ringlet/adapt/fit/fit_weight.h"

#include <vector>

#include <ATen/core/grad_mode.h>
#include <c10/core/GradMode.h>

namespace ringlet::adapt {

/// A weight as the rows that a transform sees, [N, width].
at::Tensor rows_for(const Transform& transform, const at::Tensor& w) {
  if (transform.side() == Side::output) return w.movedim(0, -1).reshape({-1, w.size(0)});
  if (transform.width() != w.size(1)) return w.flatten(1);  // patches
  return w.movedim(1, -1).reshape({-1, w.size(1)});
}

/// The inverse of rows_for, for a weight of these sizes.
at::Tensor from_rows(const Transform& transform, const at::Tensor& rows, at::IntArrayRef sizes) {
  const bool output = transform.side() == Side::output;
  if (!output && transform.width() != sizes[1]) return rows.reshape(sizes);
  const std::int64_t axis = output ? 0 : 1;
  std::vector<std::int64_t> shape = sizes.vec();
  shape.erase(shape.begin() + axis);
  shape.push_back(sizes[static_cast<std::size_t>(axis)]);
  return rows.reshape(shape).movedim(-1, axis);
}

const TensorRingMatrix* only_ring(const TransformResidual& adapter) {
  const Parts& parts = adapter.parts();
  if (parts.transforms.size() != 1 || parts.magnitude) return nullptr;
  return dynamic_cast<const TensorRingMatrix*>(parts.transforms.front().get());
}

MadeWeight make_weight(const TransformResidual& adapter, const at::Tensor& w0) {
  const c10::AutoGradMode with_gradient(true);
  const TensorRingMatrix* const ring = only_ring(adapter);
  if (ring == nullptr) {
    const at::Tensor made = adapter.weight(w0);
    return {made.detach(), [made](const at::Tensor& gradient) { made.backward(gradient); }};
  }
  const at::Tensor t = ring->matrix();
  const Residual* const residual = adapter.parts().residual.get();
  const at::Tensor d = residual != nullptr ? residual->weight() : at::Tensor();
  const at::NoGradGuard no_grad;
  const at::Tensor rows = rows_for(*ring, w0);
  at::Tensor made = from_rows(*ring, matrix_product(rows, t.t()), w0.sizes());
  if (d.defined()) made = made + d;
  return {made, [=](const at::Tensor& gradient) {
            t.backward(matrix_product(rows.t(), rows_for(*ring, gradient).t()));
            if (d.defined() && d.requires_grad()) d.backward(gradient);
          }};
}

}  // namespace ringlet::adapt
