#include "ringlet/train/norm_limit.h"

#include <algorithm>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>

namespace ringlet::train {
namespace {

struct LimitedPair {
  at::Tensor down, up;  ///< parameters
  adapt::FactoredResidual::Pair whole;
};

std::vector<LimitedPair> pairs_of(const adapt::AdapterSet& adapters) {
  std::vector<LimitedPair> found;
  for (const adapt::AdapterSet::Entry& entry : adapters.entries()) {
    const auto* const residual =
        dynamic_cast<const adapt::FactoredResidual*>(entry.adapter->parts().residual.get());
    if (residual == nullptr || !residual->starts().empty()) continue;
    LimitedPair pair{.down = {}, .up = {}, .whole = residual->pair()};
    for (const auto& [name, tensor] : residual->parameters()) {
      if (name == "down") pair.down = tensor;
      if (name == "up") pair.up = tensor;
    }
    if (pair.down.defined() && pair.up.defined()) found.push_back(std::move(pair));
  }
  return found;
}

}  // namespace

void limit_norms(const adapt::AdapterSet& adapters, double most) {
  const at::NoGradGuard no_grad;
  for (const LimitedPair& pair : pairs_of(adapters)) {
    // |U D|^2 is the trace of (U^T U) (D D^T), which are small; all stays on the device.
    const at::Tensor down = pair.whole.down.detach().flatten(1), up = pair.whole.up.detach();
    const at::Tensor square = (at::mm(up.t(), up) * at::mm(down, down.t())).sum().clamp_min_(0.0);
    const at::Tensor norm = square.sqrt_().mul_(pair.whole.scale);
    const at::Tensor factor = (most / norm.clamp_min_(0.5 * most)).clamp_max_(1.0).sqrt_();
    pair.down.detach().mul_(factor);
    pair.up.detach().mul_(factor);
  }
}

std::int64_t limited_residuals(const adapt::AdapterSet& adapters) {
  return static_cast<std::int64_t>(pairs_of(adapters).size());
}

}  // namespace ringlet::train
