// Frozen linear and convolution layers with a slot for an adapter.
#pragma once

#include <cstdint>
#include <memory>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/adapter.h"
#include "ringlet/nn/onednn.h"

namespace ringlet::nn {

class WeightSource;

/// A weight, an optional bias and the operation that applies them. The weight may be stored in a
/// narrower type (fp16, bf16) than the input's: it is widened for the duration of one call.
class Layer {
 public:
  virtual ~Layer() = default;

  /// The layer's kind of operation with any weight of its form; `bias` may be undefined.
  virtual at::Tensor operate(const at::Tensor& weight, const at::Tensor& bias,
                             const at::Tensor& x) const = 0;

  /// The base operation with `weight` in place of the layer's own; the bias is included.
  at::Tensor apply(const at::Tensor& weight, const at::Tensor& x) const {
    return operate(weight, bias_, x);
  }

  /// The base operation with the layer's own weight.
  virtual at::Tensor base(const at::Tensor& x) const { return apply(weight_, x); }

  /// The adapter's result when the slot is filled, else exactly the base operation.
  at::Tensor forward(const at::Tensor& x) const {
    return adapter ? adapter->forward(*this, x) : base(x);
  }

  /// Lays the frozen weight out for speed where that helps; weight() stays as it is.
  /// `for_training` also for the backward pass, which takes as much memory again.
  virtual void pack(bool for_training) { static_cast<void>(for_training); }

  const at::Tensor& weight() const { return weight_; }
  const at::Tensor& bias() const { return bias_; }  ///< undefined when the layer has none

  std::shared_ptr<Adapter> adapter;

 protected:
  Layer(at::Tensor weight, at::Tensor bias) : weight_(std::move(weight)), bias_(std::move(bias)) {}

  at::Tensor weight_;
  at::Tensor bias_;
};

/// y = x W^T + b, x [..., in], W [out, in].
class LinearLayer final : public Layer {
 public:
  LinearLayer(at::Tensor weight, at::Tensor bias) : Layer(std::move(weight), std::move(bias)) {}
  at::Tensor operate(const at::Tensor& weight, const at::Tensor& bias,
                     const at::Tensor& x) const override;
};

struct Conv2dOptions {
  std::int64_t stride = 1;
  std::int64_t padding = 0;
};

/// Cross-correlation, x [B, in, h, w], W [out, in, k, k].
class Conv2dLayer final : public Layer {
 public:
  Conv2dLayer(at::Tensor weight, at::Tensor bias, Conv2dOptions options)
      : Layer(std::move(weight), std::move(bias)), options_(options) {}
  at::Tensor operate(const at::Tensor& weight, const at::Tensor& bias,
                     const at::Tensor& x) const override;
  at::Tensor base(const at::Tensor& x) const override;
  void pack(bool for_training) override;
  const Conv2dOptions& options() const { return options_; }

 private:
  Conv2dOptions options_;
  onednn::PackedConv2d packed_;
};

/// Handle to a LinearLayer that is registered under its dotted name with the WeightSource.
class Linear {
 public:
  Linear(const WeightSource& source, std::int64_t in, std::int64_t out, bool bias = true);
  at::Tensor operator()(const at::Tensor& x) const { return layer_->forward(x); }

 private:
  std::shared_ptr<Layer> layer_;
};

/// Handle to a Conv2dLayer that is registered under its dotted name with the WeightSource.
class Conv2d {
 public:
  Conv2d(const WeightSource& source, std::int64_t in, std::int64_t out, std::int64_t kernel,
         Conv2dOptions options = {});
  at::Tensor operator()(const at::Tensor& x) const { return layer_->forward(x); }

 private:
  std::shared_ptr<Layer> layer_;
};

}  // namespace ringlet::nn
