// Who measures a network sees its layers at work here: their kind, their arithmetic, and when they
// begin and end.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/stored_weight.h"

namespace ringlet::nn {

/// What time is counted under. `adapter` is what an adapter computes besides the layer's own
/// product, `optimizer` clipping and update; `other` all that has no scope.
enum class LayerKind {
  linear,
  convolution,
  attention,
  norm,
  activation,
  adapter,
  optimizer,
  other
};
inline constexpr std::size_t kLayerKinds = 8;
inline constexpr std::array<std::string_view, kLayerKinds> kLayerKindNames = {
    "linear", "convolution", "attention", "norm", "activation", "adapters", "optimiser", "other"};

/// The arithmetic of a call by its shapes, whatever computes it. A product of [n, k] and [k, m] is
/// 2 n k m operations.
struct LayerWork {
  double operations = 0.0;           ///< of the forward pass
  double backward_operations = 0.0;  ///< of the backward pass that this call will have, if any
  double bytes = 0.0;                ///< of inputs, weights and outputs, each once
};

/// Linear layers and convolutions: `y` has a row of W per output. An input that asks for a gradient
/// costs as much again, and so does a weight that does.
LayerWork product_work(const at::Tensor& x, const StoredWeight& weight, const at::Tensor& y);

/// q, k, v [B, N, H * d]: two products, and four for their gradients.
LayerWork attention_work(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

/// Told of the layers that this thread computes while it is installed.
class LayerObserver {
 public:
  virtual ~LayerObserver() = default;
  virtual void begin(LayerKind kind) = 0;
  virtual void end(LayerKind kind, const LayerWork& work) = 0;

  /// The observer of all threads, or null. Whoever installs one removes it again, and nothing is
  /// computed meanwhile by others.
  static LayerObserver* installed();
  static void install(LayerObserver* observer);
};

/// A layer at work, from its construction to its destruction. Free but for a test where nobody
/// looks. Scopes nest: what is inside another counts for itself.
class LayerScope {
 public:
  explicit LayerScope(LayerKind kind) : observer_(LayerObserver::installed()), kind_(kind) {
    if (observer_ != nullptr) observer_->begin(kind);
  }
  ~LayerScope() {
    if (observer_ != nullptr) observer_->end(kind_, work_);
  }
  LayerScope(const LayerScope&) = delete;
  LayerScope& operator=(const LayerScope&) = delete;

  /// Whether somebody looks, so that the work is worth counting.
  bool observed() const { return observer_ != nullptr; }
  void set_work(const LayerWork& work) { work_ = work; }

 private:
  LayerObserver* observer_;
  LayerKind kind_;
  LayerWork work_;
};

}  // namespace ringlet::nn
