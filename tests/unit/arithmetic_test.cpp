#include "ringlet/adapt/set/arithmetic.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "tests/expect_error.h"
#include "tests/tiny_adapted_model.h"

namespace ringlet::adapt {
namespace {

using Sets = std::vector<AdapterSet>;

std::vector<const AdapterSet*> pointers(const Sets& sets) {
  std::vector<const AdapterSet*> all;
  for (const AdapterSet& set : sets) all.push_back(&set);
  return all;
}

Sets made(const TinyModel& model, const std::vector<std::pair<std::string, double>>& methods) {
  Sets sets;
  for (const auto& [method, strength] : methods) {
    sets.push_back(model.adapters(method, sets.size() + 1));
    disturb(sets.back(), std::to_string(sets.size()));
    sets.back().set_strength(strength);
  }
  return sets;
}

void expect_same_weights(const std::map<std::string, at::Tensor>& actual,
                         const std::map<std::string, at::Tensor>& expected, double relative) {
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, tensor] : expected)
    EXPECT_LE((actual.at(name) - tensor).abs().max().item<double>(),
              relative * tensor.abs().max().item<double>())
        << name;
}

TEST(Combine, DoesWhatAllDoTogether) {
  const TinyModel model;
  const std::vector<std::vector<std::pair<std::string, double>>> all = {
      {{"lora(rank=2)", 0.7}, {"lora(rank=3,alpha=6)", -0.3}},
      {{"lora(rank=2,init=pissa)", 0.5}, {"lora(rank=2,tucker=yes)", 1.0}},
      {{"tr(rank=2)", 0.7}, {"tr(rank=3)", -0.3}},
      {{"trm(rank=2)", 0.7}, {"trm(rank=1)", 0.6}},
      {{"trm(rank=2)+lora(rank=2)", 0.7}, {"lora(rank=1)", -1.0}, {"trm(rank=1)", 1.5}},
      {{"trm(rank=2)+tr(rank=2)", 0.4}, {"trm(rank=2)+tr(rank=2)", 0.6}},
      {{"lora", 0.0}, {"lora", 2.0}}};
  for (const auto& methods : all) {
    const Sets sets = made(model, methods);
    const AdapterSet sum = combine(pointers(sets));
    EXPECT_EQ(sum.strength(), 1.0);
    SCOPED_TRACE(method_text(sum.method()));
    expect_same_weights(sum.merged_weights(), merged_weights(pointers(sets)), 2e-5);
  }
}

TEST(Combine, RanksAddUp) {
  const TinyModel model;
  EXPECT_EQ(combine(pointers(made(model, {{"tr(rank=2)", 1.0}, {"tr(rank=3)", 1.0}}))).method(),
            parse_method("tr(rank=5)"));
  // 1 - (0.7 + 0.6) identities are left, a ring of rank one.
  EXPECT_EQ(combine(pointers(made(model, {{"trm(rank=2)", 0.7}, {"trm(rank=1)", 0.6}})))
                .method()
                .parts.front()
                .integer("rank"),
            4);
  EXPECT_EQ(combine(pointers(made(model, {{"trm(rank=2)", 0.5}, {"trm(rank=1)", 0.5}})))
                .method()
                .parts.front()
                .integer("rank"),
            3);
}

TEST(Combine, WhatHasNoSumIsRefused) {
  const TinyModel model;
  for (const auto& methods : std::vector<std::vector<std::pair<std::string, double>>>{
           {{"oft", 1.0}, {"lora", 1.0}},
           {{"tr", 1.0}, {"lora", 1.0}},
           {{"lora+magnitude", 1.0}, {"lora", 1.0}},
           {{"lora+bias", 0.5}, {"lora", 1.0}}}) {
    const Sets sets = made(model, methods);
    expect_error(ErrorCode::unsupported, "cannot be written as one adapter",
                 [&] { combine(pointers(sets)); });
  }
  const Sets nothing = made(model, {{"lora", 0.0}});
  expect_error(ErrorCode::invalid_argument, "changes anything",
               [&] { combine(pointers(nothing)); });
}

TEST(AsLowRank, IsTheNearestAndSaysHowNear) {
  const TinyModel model;
  for (const char* method : {"trm+tr", "oft(block=6)", "lora+magnitude", "loha(rank=3)"}) {
    const Sets sets = made(model, {{method, 0.8}});
    const auto base = model.weights();
    const auto expected = sets.front().merged_weights();
    const Approximation low = as_low_rank(pointers(sets), {.rank = 3});
    ASSERT_EQ(low.layers.size(), model.targets().size());
    const auto actual = low.set.merged_weights();
    for (const LayerError& layer : low.layers) {
      const std::string name = layer.name + ".weight";
      const at::Tensor change = expected.at(name) - base.at(name);
      const double lost = (actual.at(name) - expected.at(name)).norm().item<double>();
      EXPECT_NEAR(lost / change.norm().item<double>(), layer.relative, 1e-4) << name;
      const at::Tensor s = std::get<1>(at::linalg_svd(change.flatten(1), false));
      EXPECT_NEAR(lost, s.slice(0, 3).norm().item<double>(), 1e-4) << name;  // Eckart-Young
    }
  }
}

TEST(AsLowRank, TheErrorChoosesTheRanks) {
  const TinyModel model;
  const Sets sets = made(model, {{"trm+tr", 1.0}});
  const Approximation low = as_low_rank(pointers(sets), {.max_error = 0.05});
  for (const LayerError& layer : low.layers) {
    EXPECT_LE(layer.relative, 0.05);
    EXPECT_GE(layer.rank, 1);
  }
  const Approximation exact = as_low_rank(pointers(sets), {.rank = 1000});
  EXPECT_LT(exact.relative, 1e-5);
  // A low rank is found again.
  const Sets lora = made(model, {{"lora(rank=2)", 1.0}});
  const Approximation again = as_low_rank(pointers(lora), {.max_error = 1e-3});
  EXPECT_TRUE(std::ranges::all_of(again.layers, [](const auto& one) { return one.rank <= 2; }));
}

TEST(AsDifference, IsExact) {
  const TinyModel model;
  const Sets sets = made(model, {{"trm+tr", 0.8}, {"lora+magnitude+bias", -0.5}});
  expect_same_weights(as_difference(pointers(sets)).merged_weights(),
                      merged_weights(pointers(sets)), 1e-6);
}

TEST(BlockStrength, IsAFactorOnTheLayersThatMatch) {
  const TinyModel model;
  AdapterSet set = model.adapters("oft(block=4)");
  disturb(set);
  set.set_strength(0.8);
  set.set_block_strengths({{"unet.*", 0.5}, {"unet.mid.attn1.*", 0.0}});
  for (const AdapterSet::Entry& entry : set.entries()) {
    const double expected = entry.target.component != "unet"              ? 0.8
                            : entry.target.name.starts_with("mid.attn1.") ? 0.0
                                                                          : 0.4;
    EXPECT_DOUBLE_EQ(entry.adapter->strength, expected) << entry.target.full_name();
  }
  expect_error(ErrorCode::invalid_argument, "matches none of the adapter's layers", [&] {
    set.set_block_strengths({{"vae.*", 1.0}});
  });
  expect_error(ErrorCode::invalid_argument, "must be a finite number", [&] {
    set.set_block_strengths({{"unet.*", NAN}});
  });
}

}  // namespace
}  // namespace ringlet::adapt
