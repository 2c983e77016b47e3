#include "ringlet/nn/reused_memory.h"

#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/nn/kernels.h"

namespace ringlet::nn {
namespace {

/// What a step does: results that stay until all are there, and small ones that go at once.
void step() {
  std::vector<at::Tensor> kept;
  for (const std::int64_t length : {700, 70, 500'000, 3'000, 900'000, 500'000}) {
    kept.push_back(at::full({length}, 1.0F));
    at::full({length / 100 + 1}, 2.0F);
  }
  for (const at::Tensor& tensor : kept) EXPECT_EQ(tensor.sum().item<double>(), tensor.numel());
}

TEST(ReusedMemory, AStepTakesTheBlocksOfTheStepBeforeIt) {
  const ReusedMemory memory;
  step();
  const ReusedMemory::Use before = ReusedMemory::use();
  for (int i = 0; i < 3; ++i) step();
  const ReusedMemory::Use after = ReusedMemory::use();
  EXPECT_EQ(after.fresh, before.fresh);
  EXPECT_GE(after.reused, before.reused + 36);
  EXPECT_EQ(after.in_use, before.in_use);
  EXPECT_EQ(after.kept, before.kept);
}

TEST(ReusedMemory, ItHoldsNoMoreThanWasInUseAtOneTime) {
  constexpr std::int64_t kMebi = 1 << 20;
  const ReusedMemory memory;
  const auto bytes = [](std::int64_t count) { return at::empty({count}, at::kByte); };
  for (const std::int64_t count : {8, 3, 5, 2, 6, 4}) bytes(count * kMebi);
  ReusedMemory::Use use = ReusedMemory::use();
  EXPECT_LE(use.in_use + use.kept, use.most_in_use);
  EXPECT_GE(use.most_in_use, 8 * kMebi);
  EXPECT_LE(use.most_in_use, use.in_use + 9 * kMebi);
  const std::vector<at::Tensor> both = {bytes(4 * kMebi), bytes(7 * kMebi)};
  use = ReusedMemory::use();
  EXPECT_EQ(use.kept, 0);
  EXPECT_EQ(use.in_use, use.most_in_use);
}

TEST(ReusedMemory, TensorsAndLayoutsFromBeforeAndAfterAreFreedWhereTheyCameFrom) {
  const Conv2dOptions options{.stride = 1, .padding = 1};
  const at::Tensor kernel = at::ones({8, 8, 3, 3}), x = at::ones({1, 8, 6, 6});
  auto prepared = kernels_for(kernel).prepare_conv2d(kernel, options, WeightUse::training);
  at::Tensor before = at::ones({400'000}), inside;
  {
    const ReusedMemory outer;
    {
      const ReusedMemory inner;
      inside = before + before;
      before.reset();
      if (prepared) {
        EXPECT_EQ(prepared->conv2d(x, {})[0][0][1][1].item<float>(), 72.0F);
      }
      prepared.reset();
    }
    EXPECT_GT(ReusedMemory::use().in_use, 0);
  }
  EXPECT_EQ(ReusedMemory::use().kept, 0);
  EXPECT_EQ(inside.sum().item<double>(), 800'000.0);
  inside.reset();
  EXPECT_EQ(ReusedMemory::use().kept, 0);
  EXPECT_EQ((at::ones({400'000}) + 1).sum().item<double>(), 800'000.0);
}

}  // namespace
}  // namespace ringlet::nn
