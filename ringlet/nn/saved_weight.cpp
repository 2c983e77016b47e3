#include "ringlet/nn/saved_weight.h"

#include <utility>

namespace ringlet::nn {
namespace {

constexpr const char* kKey = "weight";

struct WeightHolder final : torch::CustomClassHolder {
  explicit WeightHolder(StoredWeight w) : weight(std::move(w)) {}
  StoredWeight weight;
};

}  // namespace

void save_weight(torch::autograd::AutogradContext& context, const StoredWeight& weight) {
  context.saved_data[kKey] = c10::IValue::make_capsule(c10::make_intrusive<WeightHolder>(weight));
}

const StoredWeight& saved_weight(torch::autograd::AutogradContext& context) {
  // The capsule lives as long as the context's data.
  return c10::static_intrusive_pointer_cast<WeightHolder>(context.saved_data[kKey].toCapsule())
      ->weight;
}

}  // namespace ringlet::nn
