// An adapter's weight for a fit, which makes it again and again from one W0.
#pragma once

#include <functional>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/parts/trm.h"
#include "ringlet/adapt/transform_residual.h"

namespace ringlet::adapt {

/// A weight as the rows that a transform sees, [N, width].
at::Tensor rows_for(const Transform& transform, const at::Tensor& w);

/// The inverse of rows_for, for a weight of these sizes.
at::Tensor from_rows(const Transform& transform, const at::Tensor& rows, at::IntArrayRef sizes);

/// The tensor-ring matrix that is the adapter's only transform, null where it has another, more, or
/// a magnitude.
const TensorRingMatrix* only_ring(const TransformResidual& adapter);

/// A weight, and what brings an error's gradient from it to the parameters that record gradients.
struct MadeWeight {
  at::Tensor weight;
  std::function<void(const at::Tensor& gradient)> backward;
};

/// W' at strength 1 with its derivatives. A ring is made as the matrix T, which a training step
/// never forms: here it is used for one product with W0, the cheapest that there is.
MadeWeight make_weight(const TransformResidual& adapter, const at::Tensor& w0);

}  // namespace ringlet::adapt
