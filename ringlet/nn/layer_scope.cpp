#include "ringlet/nn/layer_scope.h"

#include <atomic>

#include <c10/core/GradMode.h>

namespace ringlet::nn {
namespace {

std::atomic<LayerObserver*> installed_observer = nullptr;

double bytes_of(const at::Tensor& tensor) { return static_cast<double>(tensor.nbytes()); }

}  // namespace

LayerObserver* LayerObserver::installed() {
  return installed_observer.load(std::memory_order_relaxed);
}

void LayerObserver::install(LayerObserver* observer) { installed_observer = observer; }

LayerWork product_work(const at::Tensor& x, const StoredWeight& weight, const at::Tensor& y) {
  const double operations = 2.0 * static_cast<double>(y.numel()) *
                            static_cast<double>(weight.numel()) /
                            static_cast<double>(weight.size(0));
  const bool recorded = c10::GradMode::is_enabled();
  const int gradients = recorded ? (x.requires_grad() ? 1 : 0) + (weight.learns() ? 1 : 0) : 0;
  return {operations, gradients * operations,
          bytes_of(x) + static_cast<double>(weight.nbytes()) + bytes_of(y)};
}

LayerWork attention_work(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const double operations = 4.0 * static_cast<double>(q.numel()) * static_cast<double>(k.size(1));
  const bool learns =
      c10::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
  return {operations, learns ? 2.0 * operations : 0.0,
          2.0 * bytes_of(q) + bytes_of(k) + bytes_of(v)};
}

}  // namespace ringlet::nn
