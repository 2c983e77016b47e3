// From a method and a layer to the adapter of the layer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ringlet/adapt/method.h"
#include "ringlet/adapt/part.h"
#include "ringlet/adapt/parts/factors.h"
#include "ringlet/adapt/transform_residual.h"
#include "ringlet/core/random.h"
#include "ringlet/nn/layer.h"

namespace ringlet::adapt {

/// What the layers that are adapted together have in common.
struct SharedContext {
  SharedTensors tensors = {};
  LayerShape widest = {0, 0};
  bool load = false;  ///< see BuildContext

  void include(const LayerShape& shape);
};

/// The adapter of one layer at its neutral start. Its random numbers depend on the seed and the
/// layer's dotted name alone, not on which other layers there are. `shared` must have included the
/// layer. Throws Error(unsupported) where a method does not exist for the layer.
std::shared_ptr<TransformResidual> build_adapter(const Method& method, const nn::Layer& layer,
                                                 FactorTable& factors, const Random& random,
                                                 const std::string& name, SharedContext& shared);

/// The same for a layer that shares nothing.
std::shared_ptr<TransformResidual> build_adapter(const Method& method, const nn::Layer& layer,
                                                 FactorTable& factors, const Random& random,
                                                 const std::string& name);

/// Parameters of a method on a layer, by formula.
std::int64_t parameter_count(const Method& method, const LayerShape& shape, FactorTable& factors);

}  // namespace ringlet::adapt
