// The slot that an adapter fills: the interface only. Implementations live in adapt/, and neither
// nn/ nor models/ knows any of them.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace ringlet::nn {

class Layer;

/// Changes what a frozen layer computes. Law, tested for every method:
///   forward(layer, x) == layer.operate(weight(layer.weight()), bias(layer.bias()), x)
class Adapter {
 public:
  virtual ~Adapter() = default;

  /// The adapted layer's output for input x; shapes as the layer's own forward.
  virtual at::Tensor forward(const Layer& layer, const at::Tensor& x) const = 0;

  /// The adapted weight for the frozen weight w0 (same shape, a new tensor).
  virtual at::Tensor weight(const at::Tensor& w0) const = 0;

  /// The adapted bias for the frozen bias b0, which most adapters leave alone.
  virtual at::Tensor bias(const at::Tensor& b0) const { return b0; }

  /// Trainable tensors with their names inside the adapter.
  virtual std::vector<std::pair<std::string, at::Tensor>> parameters() const = 0;

  /// Method text from which the same adapter can be built again.
  virtual std::string spec() const = 0;
};

}  // namespace ringlet::nn
