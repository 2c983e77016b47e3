#include "ringlet/adapt/contraction.h"

namespace ringlet::adapt {
namespace {

struct Costs {
  double through = 0.0;
  double folded = 0.0;  ///< without the gradient of the whole weight
};

Costs costs_of(const Transform& transform, const LayerShape& shape, double tokens, double passes) {
  const double each = transform.multiply_adds() + kWriteCost * transform.written();
  const std::int64_t weights = shape.out * shape.patch();
  const auto rows = static_cast<double>(weights / transform.width());
  return {passes * tokens * each, passes * rows * each + kWriteCost * static_cast<double>(weights)};
}

Costs costs_of(const Residual& residual, const LayerShape& shape, double tokens, double passes) {
  const auto weights = static_cast<double>(shape.out * shape.patch());
  const double each = residual.multiply_adds() + kWriteCost * static_cast<double>(shape.out);
  return {passes * tokens * each, passes * residual.forming() + 2.0 * kWriteCost * weights};
}

}  // namespace

Contraction choose_contraction(std::span<const std::unique_ptr<Transform>> transforms,
                               const Residual* residual, const LayerShape& shape,
                               std::int64_t tokens, bool training) {
  const auto count = static_cast<double>(tokens);
  const double passes = training ? 3.0 : 1.0;  // the backward pass has two products for each one
  Costs transform, rest;
  for (const auto& each : transforms) {
    const Costs costs = costs_of(*each, shape, count, passes);
    transform.through += costs.through;
    transform.folded += costs.folded;
  }
  if (residual != nullptr) rest = costs_of(*residual, shape, count, passes);
  // Only a folded weight has a gradient, which is one more product of the layer's size.
  const double gradient = training ? count * static_cast<double>(shape.out * shape.patch()) : 0.0;
  const double through = transform.through + rest.through;
  const double half = transform.folded + rest.through + gradient;
  const double all = transform.folded + rest.folded + gradient;
  if (through <= half && through <= all) return Contraction::through_input;
  return all < half && residual != nullptr ? Contraction::everything_folded
                                           : Contraction::transform_folded;
}

}  // namespace ringlet::adapt
