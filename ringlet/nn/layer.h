// Frozen linear and convolution layers with a slot for an adapter.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/adapter.h"
#include "ringlet/nn/layer_options.h"
#include "ringlet/nn/stored_weight.h"

namespace ringlet::nn {

class PreparedConv2d;
class WeightSource;

/// A weight, an optional bias and the operation that applies them. The weight may be stored in a
/// narrower type (fp16, bf16) than the input's, or as codes: it is widened for the duration of one
/// call.
class Layer {
 public:
  virtual ~Layer() = default;

  /// The layer's kind of operation with any weight of its form; `bias` may be undefined.
  virtual at::Tensor operate(const StoredWeight& weight, const at::Tensor& bias,
                             const at::Tensor& x) const = 0;

  /// The base operation with `weight` in place of the layer's own; the bias is included.
  at::Tensor apply(const StoredWeight& weight, const at::Tensor& x) const {
    return operate(weight, bias_, x);
  }

  /// The base operation with the layer's own weight, and without its bias.
  at::Tensor base(const at::Tensor& x) const { return own(x, bias_); }
  at::Tensor without_bias(const at::Tensor& x) const { return own(x, {}); }

  /// The adapter's result when the slot is filled, else exactly the base operation.
  virtual at::Tensor forward(const at::Tensor& x) const {
    return adapter ? adapter->forward(*this, x) : base(x);
  }

  /// Lays the frozen weight out for its use where that helps; weight() stays as it is.
  virtual void pack(WeightUse use) { static_cast<void>(use); }

  /// A weight of this layer as its checkpoint stores it.
  virtual at::Tensor stored(const at::Tensor& weight) const { return weight; }

  /// The weight's numbers: of codes a new tensor in fp32 for every call.
  at::Tensor weight() const {
    return weight_.coded() ? weight_.widened(at::kFloat) : weight_.plain();
  }
  /// The weight as it is in memory.
  const StoredWeight& stored_weight() const { return weight_; }
  at::IntArrayRef shape() const { return weight_.sizes(); }  ///< of the weight
  /// Where it computes; the weight may rest in host memory meanwhile (nn/network_memory.h).
  at::Device device() const { return device_; }
  void compute_on(at::Device device) { device_ = device; }
  const at::Tensor& bias() const { return bias_; }  ///< undefined when the layer has none

  std::shared_ptr<Adapter> adapter;

 protected:
  Layer(StoredWeight weight, at::Tensor bias)
      : weight_(std::move(weight)), bias_(std::move(bias)), device_(weight_.device()) {}

  /// The operation with the layer's own weight, in the layout that pack() has made.
  virtual at::Tensor own(const at::Tensor& x, const at::Tensor& bias) const {
    return operate(weight_, bias, x);
  }

  StoredWeight weight_;
  at::Tensor bias_;

 private:
  at::Device device_;
};

/// y = x W^T + b, x [..., in], W [out, in].
class LinearLayer final : public Layer {
 public:
  LinearLayer(StoredWeight weight, at::Tensor bias, bool transposed = false)
      : Layer(std::move(weight), std::move(bias)), transposed_(transposed) {}
  at::Tensor operate(const StoredWeight& weight, const at::Tensor& bias,
                     const at::Tensor& x) const override;
  at::Tensor stored(const at::Tensor& weight) const override {
    return transposed_ ? weight.t().contiguous() : weight;
  }

 private:
  bool transposed_;
};

/// Cross-correlation, x [B, in, h, w], W [out, in, k, k].
class Conv2dLayer final : public Layer {
 public:
  Conv2dLayer(StoredWeight weight, at::Tensor bias, Conv2dOptions options)
      : Layer(std::move(weight), std::move(bias)), options_(options) {}
  at::Tensor operate(const StoredWeight& weight, const at::Tensor& bias,
                     const at::Tensor& x) const override;
  void pack(WeightUse use) override;
  const Conv2dOptions& options() const { return options_; }
  /// The weight as pack() has laid it out; null where it has not.
  const PreparedConv2d* prepared() const { return prepared_.get(); }

 private:
  at::Tensor own(const at::Tensor& x, const at::Tensor& bias) const override;

  Conv2dOptions options_;
  std::shared_ptr<const PreparedConv2d> prepared_;
};

/// Rows of a table, x int64 [...] -> [..., width], W [count, width]. Its adapters change the table:
/// T mixes the width, D adds to the rows.
class EmbeddingLayer final : public Layer {
 public:
  explicit EmbeddingLayer(at::Tensor weight) : Layer(std::move(weight), {}) {}
  at::Tensor operate(const StoredWeight& weight, const at::Tensor& bias,
                     const at::Tensor& x) const override;
  at::Tensor forward(const at::Tensor& x) const override { return operate(table(), {}, x); }
  /// The whole table, with the adapter.
  at::Tensor table() const { return adapter ? adapter->weight(weight()) : weight(); }
};

/// The layer of a checkpoint's weight whose network is not known: a matrix as a linear layer
/// (stored as [in, out] where `transposed`), four axes as a convolution, null for anything else.
std::shared_ptr<Layer> layer_of_tensor(const at::Tensor& weight, const at::Tensor& bias,
                                       bool transposed);

/// Handle to a LinearLayer that is registered under its dotted name with the WeightSource.
class Linear {
 public:
  Linear(const WeightSource& source, std::int64_t in, std::int64_t out, bool bias = true);
  at::Tensor operator()(const at::Tensor& x) const { return layer_->forward(x); }

 private:
  std::shared_ptr<Layer> layer_;
};

/// The same of a checkpoint that stores the weight as [in, out] (GPT-2's Conv1D). The layer, and
/// what adapts it, has W [out, in], a view of the stored tensor; Layer::stored turns it back.
class TransposedLinear {
 public:
  TransposedLinear(const WeightSource& source, std::int64_t in, std::int64_t out);
  at::Tensor operator()(const at::Tensor& x) const { return layer_->forward(x); }

 private:
  std::shared_ptr<Layer> layer_;
};

/// Handle to a Conv2dLayer that is registered under its dotted name with the WeightSource.
class Conv2d {
 public:
  Conv2d(const WeightSource& source, std::int64_t in, std::int64_t out, std::int64_t kernel,
         Conv2dOptions options = {}, bool bias = true);
  at::Tensor operator()(const at::Tensor& x) const { return layer_->forward(x); }

 private:
  std::shared_ptr<Layer> layer_;
};

/// Handle to an EmbeddingLayer (unlike nn::Embedding it takes adapters) that is registered under
/// its dotted name with the WeightSource.
class EmbeddingTable {
 public:
  EmbeddingTable(const WeightSource& source, std::int64_t count, std::int64_t width,
                 double deviation = 0.02);
  /// Rows in the compute type; a table that learns is kept in fp32.
  at::Tensor operator()(const at::Tensor& ids) const { return layer_->forward(ids).to(dtype_); }
  at::Tensor table() const { return layer_->table().to(dtype_); }

 private:
  std::shared_ptr<EmbeddingLayer> layer_;
  at::ScalarType dtype_;
};

}  // namespace ringlet::nn
