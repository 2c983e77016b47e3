// Dropout of adapters: draws that a step repeats, expectations, what cannot be left out.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/tiny_adapted_model.h"

namespace ringlet::adapt {
namespace {

std::vector<at::Tensor> outputs_at(const TinyModel& model, const AdapterSet& set,
                                   const Dropout& rates, std::uint64_t step) {
  set.begin_step(rates, Random(5), step);
  return model.outputs();
}

class DropoutOf : public testing::TestWithParam<Dropout> {};
INSTANTIATE_TEST_SUITE_P(All, DropoutOf,
                         testing::Values(Dropout{.input = 0.5}, Dropout{.rank = 0.5},
                                         Dropout{.module = 0.5}));

TEST_P(DropoutOf, AStepIsTheSameTwiceAndAnotherOneIsNot) {
  const TinyModel model;
  AdapterSet set = model.adapters("trm+lora(rank=4)");
  disturb(set);
  set.attach();
  const std::vector<at::Tensor> whole = model.outputs();
  const auto first = outputs_at(model, set, GetParam(), 1);
  EXPECT_FALSE(equal(first, whole));
  EXPECT_TRUE(equal(model.outputs(), first));  // a step computed again
  EXPECT_TRUE(equal(outputs_at(model, set, GetParam(), 1), first));
  bool differs = false;
  for (std::uint64_t step = 2; step < 6; ++step)
    differs = differs || !equal(outputs_at(model, set, GetParam(), step), first);
  EXPECT_TRUE(differs);
  EXPECT_TRUE(equal(outputs_at(model, set, {}, 7), whole));
}

TEST_P(DropoutOf, TheMeanIsTheAdapter) {
  const at::NoGradGuard no_grad;
  const TinyModel model;
  const std::vector<at::Tensor> base = model.outputs();
  AdapterSet set = model.adapters("lora(rank=8)");
  disturb(set);
  set.attach();
  const std::vector<at::Tensor> whole = model.outputs();
  const double kept = GetParam().module > 0.0 ? 0.5 : 1.0;  // a module is not scaled
  std::vector<at::Tensor> sum(whole.size());
  constexpr int kSteps = 4000;
  for (int step = 0; step < kSteps; ++step) {
    const auto some = outputs_at(model, set, GetParam(), static_cast<std::uint64_t>(step));
    for (std::size_t i = 0; i < sum.size(); ++i)
      sum[i] = sum[i].defined() ? sum[i] + some[i] : some[i];
  }
  for (std::size_t i = 0; i < sum.size(); ++i) {
    const at::Tensor expected = base[i] + kept * (whole[i] - base[i]);
    const double size = (whole[i] - base[i]).abs().max().item<double>();
    EXPECT_LE((sum[i] / kSteps - expected).abs().max().item<double>(), 0.15 * size);
  }
}

TEST(Dropout, RanksThatAreNotThereAreNamed) {
  const TinyModel model;
  const AdapterSet set = model.adapters("lokr");
  expect_error(ErrorCode::unsupported, "has no ranks",
               [&] { set.begin_step({.rank = 0.1}, Random(1), 0); });
  EXPECT_NO_THROW(set.begin_step({.input = 0.1, .module = 0.1}, Random(1), 0));
}

}  // namespace
}  // namespace ringlet::adapt
