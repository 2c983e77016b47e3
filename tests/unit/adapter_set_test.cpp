// A method's adapters on several layers: attached, combined and merged.
#include "ringlet/adapt/set/adapter_set.h"

#include <limits>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/build.h"
#include "ringlet/adapt/method_text.h"
#include "tests/expect_error.h"
#include "tests/tiny_adapted_model.h"

namespace ringlet::adapt {
namespace {

void expect_close(const at::Tensor& actual, const at::Tensor& expected, double relative = 1e-5) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const at::Tensor wide = expected.to(at::kDouble);
  EXPECT_LE((actual.to(at::kDouble) - wide).abs().max().item<double>(),
            relative * wide.abs().max().item<double>());
}

class AdapterSetMethods : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, AdapterSetMethods, testing::ValuesIn(all_methods()), method_name);

TEST_P(AdapterSetMethods, NamesAndCountsItsParameters) {
  const TinyModel model;
  const AdapterSet set = model.adapters(GetParam());
  FactorTable factors;
  std::int64_t expected = 0, actual = 0;
  for (const Target& target : model.targets())
    expected += parameter_count(set.method(), LayerShape::of(target.layer->weight()), factors);
  for (const auto& [name, tensor] : set.parameters()) {
    EXPECT_TRUE(name.starts_with("unet.mid.") || name.starts_with("text_encoder.layers.0.fc1."));
    EXPECT_TRUE(std::ranges::any_of(
        std::vector{".transform.", ".residual.", ".magnitude.", ".bias."},
        [&name = name](const char* part) { return name.find(part) != name.npos; }))
        << name;
    EXPECT_TRUE(tensor.requires_grad());
    actual += tensor.numel();
  }
  EXPECT_EQ(actual, expected);
  EXPECT_EQ(set.parameter_count(), expected);
}

// L3: whatever was done with an adapter, the base is what it was, bit for bit.
TEST_P(AdapterSetMethods, DetachingMergingAndDisablingRestoreTheBase) {
  const TinyModel model;
  const std::vector<at::Tensor> before = model.outputs();
  const std::map<std::string, at::Tensor> weights = model.weights();
  {
    AdapterSet set = model.adapters(GetParam());
    disturb(set);
    EXPECT_TRUE(equal(model.outputs(), before));  // not attached yet
    set.attach();
    const std::vector<at::Tensor> adapted = model.outputs();
    for (std::size_t i = 0; i < before.size(); ++i) EXPECT_FALSE(at::equal(adapted[i], before[i]));
    EXPECT_FALSE(equal(set.merged_weights(), weights));
    set.set_strength(0.0);
    EXPECT_TRUE(equal(model.outputs(), before));
    EXPECT_TRUE(equal(set.merged_weights(), weights));
    set.set_strength(1.0);
    EXPECT_TRUE(equal(model.outputs(), adapted));
    set.detach();
    EXPECT_TRUE(equal(model.outputs(), before));
    set.attach();
  }
  EXPECT_TRUE(equal(model.outputs(), before));  // the destructor detached
  EXPECT_TRUE(equal(model.weights(), weights));
  for (const Target& target : model.targets()) EXPECT_EQ(target.layer->adapter, nullptr);
}

TEST_P(AdapterSetMethods, MergedWeightsDoWhatTheAttachedAdaptersDo) {
  const TinyModel model;
  AdapterSet set = model.adapters(GetParam());
  disturb(set);
  set.set_strength(0.7);
  set.attach();
  const std::vector<at::Tensor> expected = model.outputs();
  const TinyModel merged;
  const std::map<std::string, at::Tensor> weights = set.merged_weights();
  std::size_t used = 0;
  for (const Target& target : merged.targets()) {
    const at::Tensor& weight = weights.at(target.full_name() + ".weight");
    EXPECT_FALSE(weight.requires_grad());
    target.layer->weight().copy_(weight);
    ++used;
    const auto bias = weights.find(target.full_name() + ".bias");
    if (bias == weights.end()) continue;
    target.layer->bias().copy_(bias->second);
    ++used;
  }
  EXPECT_EQ(weights.size(), used);
  const std::vector<at::Tensor> actual = merged.outputs();
  for (std::size_t i = 0; i < expected.size(); ++i) expect_close(actual[i], expected[i]);
}

// W0 + sum_k s_k (W_k - W0), in the slots as well as merged.
TEST_P(AdapterSetMethods, SeveralAddUpWithTheirStrengths) {
  const TinyModel model;
  const std::map<std::string, at::Tensor> base = model.weights();
  std::vector<AdapterSet> sets;
  for (const char* other : {"trm+tr", "lora", "oft(side=output)+loha", "lora+magnitude+bias"}) {
    sets.push_back(model.adapters(GetParam()));
    sets.push_back(model.adapters(other));
  }
  const std::vector<double> strengths = {0.6, -0.4, 1.0, 0.0, 0.25, 1.0, 0.5};
  std::vector<const AdapterSet*> pointers;
  std::map<std::string, at::Tensor> expected;
  for (const auto& [name, weight] : base) expected[name] = weight.to(at::kDouble);
  for (std::size_t k = 0; k < sets.size(); ++k) {
    const double strength = strengths[k % strengths.size()];
    disturb(sets[k], std::to_string(k));
    for (const auto& [name, weight] : sets[k].merged_weights())
      if (base.contains(name))
        expected[name] = expected[name] + strength * (weight.to(at::kDouble) - base.at(name));
    sets[k].set_strength(strength);
    sets[k].attach();
    pointers.push_back(&sets[k]);
  }
  for (const auto& [name, weight] : merged_weights(pointers))
    if (base.contains(name)) expect_close(weight, expected[name]);
  const at::NoGradGuard no_grad;
  for (const Target& target : model.targets()) {
    const at::Tensor& w = expected[target.full_name() + ".weight"];
    const nn::Shape shape =
        w.dim() == 2 ? nn::Shape{2, 3, w.size(1)} : nn::Shape{2, w.size(1), 5, 4};
    const at::Tensor x = golden::uniform("x", shape);
    const at::Tensor y = target.layer->forward(x);
    const nn::Layer& layer = *target.layer;
    expect_close(y, layer.operate(w.to(at::kFloat), layer.adapter->bias(layer.bias()), x));
    expect_close(layer.adapter->weight(layer.weight()), w);
  }
}

TEST(AdapterSet, ASingleOneOfSeveralIsExactlyItself) {
  const TinyModel model;
  const std::vector<at::Tensor> base = model.outputs();
  AdapterSet first = model.adapters("trm+lora"), second = model.adapters("lora"),
             third = model.adapters("trm+tr");
  for (const AdapterSet* set : {&first, &second, &third}) disturb(*set);
  first.attach();
  EXPECT_EQ(model.layer("mid.conv").adapter->spec(), method_text(first.method()));
  const std::vector<at::Tensor> alone = model.outputs();
  second.attach();
  second.attach();  // once is enough
  third.attach();
  EXPECT_EQ(model.layer("mid.conv").adapter->spec(), method_text(first.method()) + " & " +
                                                         method_text(second.method()) + " & " +
                                                         method_text(third.method()));
  EXPECT_EQ(model.layer("mid.conv").adapter->parameters().front().first, "0.transform.core_0");
  for (AdapterSet* set : {&first, &second, &third}) set->set_strength(0.0);
  EXPECT_TRUE(equal(model.outputs(), base));
  for (AdapterSet* set : {&first, &second, &third}) set->set_strength(1.0);
  second.detach();
  third.detach();
  EXPECT_TRUE(equal(model.outputs(), alone));
  third.attach();
  first.detach();
  EXPECT_EQ(model.layer("mid.conv").adapter, third.entries().back().adapter);
  third.detach();
  EXPECT_TRUE(equal(model.outputs(), base));
}

TEST(AdapterSet, GradientsReachEveryTermOfASum) {
  const TinyModel model;
  AdapterSet first = model.adapters("trm+lora"), second = model.adapters("trm+tr"),
             third = model.adapters("lora");
  for (AdapterSet* set : {&first, &second, &third}) {
    disturb(*set);
    set->attach();
  }
  third.set_trainable(false);
  model.layer("mid.conv").forward(golden::uniform("x", {1, 8, 4, 4})).square().sum().backward();
  for (AdapterSet* set : {&first, &second, &third})
    for (const auto& [name, tensor] : set->parameters())
      EXPECT_EQ(tensor.grad().defined(), set != &third && name.starts_with("unet.mid.conv."))
          << name;
}

TEST(AdapterSet, MovesWithItsAttachment) {
  const TinyModel model;
  const std::vector<at::Tensor> base = model.outputs();
  AdapterSet first = model.adapters("lora"), other = model.adapters("tr");
  disturb(first);
  disturb(other);
  first.attach();
  const std::vector<at::Tensor> adapted = model.outputs();
  {
    AdapterSet second = std::move(first);
    EXPECT_TRUE(second.attached());
    EXPECT_TRUE(equal(model.outputs(), adapted));
    other.attach();
    other = std::move(second);  // detaches what it held
    EXPECT_TRUE(equal(model.outputs(), adapted));
  }
  EXPECT_TRUE(equal(model.outputs(), adapted));
  other.detach();
  EXPECT_TRUE(equal(model.outputs(), base));
}

TEST(AdapterSet, MergesNarrowWeightsInOneRounding) {
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16, at::kDouble}) {
    const TinyModel model(10, type);
    AdapterSet set = model.adapters("trm+lora");
    disturb(set);
    for (const AdapterSet::Entry& entry : set.entries()) {
      const at::Tensor wide =
          entry.target.layer->weight().to(type == at::kDouble ? at::kDouble : at::kFloat);
      const at::NoGradGuard no_grad;
      EXPECT_TRUE(at::equal(set.merged_weights().at(entry.target.full_name() + ".weight"),
                            entry.adapter->weight(wide).to(type)));
    }
  }
}

TEST(AdapterSet, StartsDependOnSeedAndLayerAlone) {
  const TinyModel model;
  const Parameters all = model.adapters("trm+lora").parameters();
  const std::vector<Target> one = select_targets(model.components(), {.include = {"*.to_q"}});
  const AdapterSet alone =
      AdapterSet::create(parse_method("trm+lora"), one, FactorTable(), Random(3));
  for (const auto& [name, tensor] : alone.parameters()) {
    const auto same = std::ranges::find(all, name, [](const auto& p) { return p.first; });
    ASSERT_NE(same, all.end());
    EXPECT_TRUE(at::equal(same->second, tensor));
  }
  EXPECT_FALSE(at::equal(model.adapters("lora", 4).parameters().front().second,
                         model.adapters("lora", 3).parameters().front().second));
}

TEST(AdapterSet, RefusesWhatItCannotDo) {
  const TinyModel model;
  std::vector<Target> twice = model.targets();
  twice.push_back(twice.front());
  const Method method = parse_method("lora");
  expect_error(ErrorCode::invalid_argument, "text_encoder.layers.0.fc1: would be adapted twice",
               [&] { AdapterSet::create(method, twice, FactorTable(), Random(1)); });
  expect_error(ErrorCode::invalid_argument, "no layer to adapt",
               [&] { AdapterSet::create(method, {}, FactorTable(), Random(1)); });
  AdapterSet set = model.adapters("lora");
  expect_error(ErrorCode::invalid_argument, "finite",
               [&] { set.set_strength(std::numeric_limits<double>::quiet_NaN()); });
  EXPECT_EQ(set.strength(), 1.0);
}

}  // namespace
}  // namespace ringlet::adapt
