#include "ringlet/nn/layer.h"

#include <cmath>

#include <ATen/ops/embedding.h>

#include "ringlet/nn/kernels.h"
#include "ringlet/nn/layer_scope.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::nn {
namespace {

at::Tensor widened(const at::Tensor& tensor, const at::Tensor& x) {
  return tensor.defined() ? tensor.to(x.scalar_type()) : tensor;
}

/// What `compute` computes of x with `weight`, for those who look. Weights of another form than the
/// layer's `own` are an adapter's factors. One of its form stands for it: what the network itself
/// has to compute does not depend on the adapter.
template <class Compute>
at::Tensor observed(LayerKind kind, const at::Tensor& x, const StoredWeight& weight,
                    const StoredWeight& own, const Compute& compute) {
  const bool of_its_form = weight.sizes() == own.sizes();
  LayerScope scope(of_its_form ? kind : LayerKind::adapter);
  at::Tensor y = compute();
  if (scope.observed() && of_its_form) scope.set_work(product_work(x, own, y));
  return y;
}

}  // namespace

at::Tensor LinearLayer::operate(const StoredWeight& weight, const at::Tensor& bias,
                                const at::Tensor& x) const {
  return observed(LayerKind::linear, x, weight, weight_,
                  [&] { return kernels_for(x).linear(x, weight, widened(bias, x)); });
}

at::Tensor Conv2dLayer::operate(const StoredWeight& weight, const at::Tensor& bias,
                                const at::Tensor& x) const {
  return observed(LayerKind::convolution, x, weight, weight_,
                  [&] { return kernels_for(x).conv2d(x, weight, widened(bias, x), options_); });
}

at::Tensor Conv2dLayer::own(const at::Tensor& x, const at::Tensor& bias) const {
  const bool ready = prepared_ && &prepared_->kernels() == &kernels_for(x);
  if (!ready) return operate(weight_, bias, x);
  return observed(LayerKind::convolution, x, weight_, weight_,
                  [&] { return prepared_->conv2d(x, bias); });
}

void Conv2dLayer::pack(WeightUse use) {
  // The bias has the type of the computation. A narrower weight is widened into the layout, and
  // stays as it is for those who ask for it. A kernel in codes tells no type: without a bias the
  // set of fp32 prepares it, and others compute without.
  const at::ScalarType type = bias_.defined()   ? bias_.scalar_type()
                              : weight_.coded() ? at::kFloat
                                                : weight_.plain().scalar_type();
  prepared_ = kernels_for(device(), type).prepare_conv2d(weight_, options_, use);
}

at::Tensor EmbeddingLayer::operate(const StoredWeight& weight, const at::Tensor& /*bias*/,
                                   const at::Tensor& x) const {
  return at::embedding(weight.plain(), x);
}

std::shared_ptr<Layer> layer_of_tensor(const at::Tensor& weight, const at::Tensor& bias,
                                       bool transposed) {
  if (weight.dim() == 4) return std::make_shared<Conv2dLayer>(weight, bias, Conv2dOptions{});
  if (weight.dim() != 2) return nullptr;
  return std::make_shared<LinearLayer>(transposed ? weight.t() : weight, bias, transposed);
}

Linear::Linear(const WeightSource& source, std::int64_t in, std::int64_t out, bool bias) {
  const Init init = Init::uniform(1.0 / std::sqrt(static_cast<double>(in)));
  layer_ = std::make_shared<LinearLayer>(source.weight({out, in}, init),
                                         bias ? source.get("bias", {out}, init) : at::Tensor());
  source.add_layer(layer_);
}

TransposedLinear::TransposedLinear(const WeightSource& source, std::int64_t in, std::int64_t out) {
  layer_ = std::make_shared<LinearLayer>(source.transposed_weight({in, out}, Init::normal(0.02)),
                                         source.get("bias", {out}, Init::constant(0.0)),
                                         /*transposed=*/true);
  source.add_layer(layer_);
}

Conv2d::Conv2d(const WeightSource& source, std::int64_t in, std::int64_t out, std::int64_t kernel,
               Conv2dOptions options, bool bias) {
  const Init init = Init::uniform(1.0 / std::sqrt(static_cast<double>(in * kernel * kernel)));
  layer_ =
      std::make_shared<Conv2dLayer>(source.weight({out, in, kernel, kernel}, init),
                                    bias ? source.get("bias", {out}, init) : at::Tensor(), options);
  source.add_layer(layer_);
}

EmbeddingTable::EmbeddingTable(const WeightSource& source, std::int64_t count, std::int64_t width,
                               double deviation)
    : layer_(std::make_shared<EmbeddingLayer>(
          source.get("weight", {count, width}, Init::normal(deviation)))),
      dtype_(source.options().dtype) {
  source.add_layer(layer_);
}

}  // namespace ringlet::nn
