// Weight decay alone leads every method back to the frozen network: W' = W0, b' = b.
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "ringlet/train/optimizers.h"
#include "tests/tiny_adapted_model.h"

namespace ringlet::adapt {
namespace {

/// The registry's pairs, and the forms of parts that start elsewhere.
std::vector<std::string> decaying_methods() {
  std::vector<std::string> all = all_methods();
  for (const char* more :
       {"trm(rank=2,init=paper)", "trm(rank=3)+trm(rank=1)", "glora(rank=2)",
        "lora(rank=2,init=olora)", "lora(rank=2,init=gaussian)", "lora(rank=2,init=orthogonal)",
        "diagonal(form=offset)", "diagonal(side=output,bias=yes)+lora", "hra(rank=2,over=patches)",
        "oft(block=4,form=matrix,side=output)", "lora(rank=2,tucker=yes)",
        "trm+lora+magnitude(norm=exact)+bias(scale=0.5)", "lora+magnitude(axis=input,norm=exact)"})
    all.emplace_back(more);
  return all;
}

void expect_near(const at::Tensor& actual, const at::Tensor& expected, const std::string& name) {
  const double worst = (actual - expected).abs().max().item<double>();
  EXPECT_LT(worst, 1e-5 * expected.abs().max().item<double>()) << name;
}

class WeightDecay : public testing::TestWithParam<std::string> {};

TEST_P(WeightDecay, AloneLeadsToTheFrozenNetwork) {
  const TinyModel model;
  const AdapterSet set = model.adapters(GetParam());
  disturb(set);  // before the trainables are made: the start is no copy of the values
  const auto frozen = model.weights();
  std::map<std::string, at::Tensor> disturbed = set.merged_weights();
  const auto parameters = train::trainables(set);
  const auto optimizer = train::adamw({.weight_decay = 1.0}).make(parameters);
  for (const train::Trainable& parameter : parameters)
    parameter.value.mutable_grad() = at::zeros_like(parameter.value).detach();
  constexpr int kHalvings = 60;
  for (int step = 0; step < kHalvings; ++step) optimizer->step(0.5);

  const std::map<std::string, at::Tensor> merged = set.merged_weights();
  bool moved = false;
  for (const auto& [name, tensor] : merged) {
    moved = moved || !at::equal(tensor, disturbed.at(name));
    const auto weight = frozen.find(name);
    if (weight != frozen.end()) expect_near(tensor, weight->second, name);
  }
  EXPECT_TRUE(moved);
  for (const Target& target : model.targets())
    if (const auto bias = merged.find(target.full_name() + ".bias"); bias != merged.end())
      expect_near(bias->second, target.layer->bias(), bias->first);
}

INSTANTIATE_TEST_SUITE_P(Methods, WeightDecay, testing::ValuesIn(decaying_methods()), method_name);

}  // namespace
}  // namespace ringlet::adapt
