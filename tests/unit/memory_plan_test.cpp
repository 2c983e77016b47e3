#include "ringlet/train/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "ringlet/core/option.h"
#include "ringlet/core/random.h"
#include "ringlet/core/text.h"
#include "tests/expect_error.h"

namespace ringlet::train {
namespace {

using pipeline::step_peak;
using pipeline::StepBlock;

double work_of(const std::vector<StepBlock>& blocks, const nn::RecomputedBlocks& recomputed) {
  double work = 0.0;
  for (const StepBlock& block : blocks)
    if (!block.name.empty() && recomputed.contains(block.name)) work += block.work;
  return work;
}

std::vector<StepBlock> random_blocks(RandomStream& random, std::size_t count, bool repeat) {
  std::vector<StepBlock> blocks;
  const auto draw = [&](std::uint64_t most) {
    return static_cast<double>(random.uniform_int(most));
  };
  for (std::size_t i = 0; i < count; ++i)
    blocks.push_back({.name = i % 5 == 4 ? "" : "block" + std::to_string(repeat ? i % 4 : i),
                      .before = draw(10),
                      .inside = draw(40),
                      .passing = draw(30),
                      .work = 1.0 + draw(20)});
  return blocks;
}

/// The least work by trying everything; negative where nothing fits.
double least_work(const std::vector<StepBlock>& blocks, double bytes) {
  std::vector<std::string> names;
  for (const StepBlock& block : blocks)
    if (!block.name.empty() && std::ranges::find(names, block.name) == names.end())
      names.push_back(block.name);
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t mask = 0; mask < (std::size_t{1} << names.size()); ++mask) {
    nn::RecomputedBlocks some;
    for (std::size_t i = 0; i < names.size(); ++i)
      if ((mask >> i) % 2 == 1) some.names.insert(names[i]);
    if (step_peak(blocks, some) <= bytes) least = std::min(least, work_of(blocks, some));
  }
  return std::isinf(least) ? -1.0 : least;
}

TEST(MemoryPlan, TheBlocksToComputeAgainAreTheCheapestThereAre) {
  RandomStream random = Random(3).stream("blocks");
  int planned = 0, refused = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const std::vector<StepBlock> blocks =
        random_blocks(random, 3 + static_cast<std::size_t>(trial % 9), false);
    const double all = step_peak(blocks, {});
    const double bytes = std::floor(all * (0.2 + 0.9 * random.uniform()));
    const auto plan = cheapest_recomputation(blocks, bytes);
    const double least = least_work(blocks, bytes);
    ASSERT_EQ(plan.has_value(), least >= 0.0) << trial;
    (plan ? planned : refused) += 1;
    if (!plan) continue;
    EXPECT_LE(step_peak(blocks, *plan), bytes) << trial;
    EXPECT_EQ(work_of(blocks, *plan), least) << trial;
  }
  EXPECT_GT(planned, 50);
  EXPECT_GT(refused, 20);
}

TEST(MemoryPlan, BlocksOfOneNameGoTogether) {
  RandomStream random = Random(4).stream("blocks");
  for (int trial = 0; trial < 100; ++trial) {
    const std::vector<StepBlock> blocks = random_blocks(random, 8, true);
    const double bytes = std::floor(step_peak(blocks, {}) * (0.5 + 0.5 * random.uniform()));
    const auto plan = cheapest_recomputation(blocks, bytes);
    if (plan) EXPECT_LE(step_peak(blocks, *plan), bytes) << trial;
  }
}

// Eighty blocks of a few sizes, as SDXL has, and as many that are all different.
TEST(MemoryPlan, ManyBlocksArePlannedAtOnce) {
  RandomStream random = Random(5).stream("blocks");
  for (const bool alike : {true, false}) {
    std::vector<StepBlock> blocks;
    for (int i = 0; i < 80; ++i) {
      const double size = alike ? 1.0 + i % 4 : 1.0 + random.uniform();
      blocks.push_back({.name = std::to_string(i),
                        .before = 1e6,
                        .inside = 1e8 * size,
                        .passing = 1e8,
                        .work = size * (1.0 + 0.1 * random.uniform())});
    }
    const double bytes = 0.5 * step_peak(blocks, {});
    const auto plan = cheapest_recomputation(blocks, bytes);
    ASSERT_TRUE(plan);
    EXPECT_LE(step_peak(blocks, *plan), bytes);
    EXPECT_LT(plan->names.size(), 50u);
  }
}

/// A need with one block that grows with the rows, and coding that tiles make smaller.
MemoryNeed need_of(const MemorySavings& savings, std::int64_t batch) {
  const auto rows = static_cast<double>((batch + savings.parts - 1) / savings.parts);
  return {.beside = savings.storage == nn::WeightStorage::int8 ? 50U : 100U,
          .apart = savings.tile == 0 ? 200U : 60U,
          .blocks = {{.name = "a", .before = rows, .inside = 10 * rows, .passing = rows, .work = 1},
                     {.name = "b", .before = rows, .inside = 40 * rows, .passing = rows, .work = 3},
                     {.before = rows, .passing = rows}}};
}

class MemoryPlanning : public testing::Test {
 protected:
  std::optional<PlannedMemory> plan(std::uint64_t limit) {
    choices_.limit = limit;
    return plan_memory(choices_, {}, need_);
  }
  MemoryChoices choices_{.batch_size = 4, .divisible = true, .tiles = {0, 256}};
  NeedOf need_ = [](const MemorySavings& savings) { return need_of(savings, 4); };
};

TEST_F(MemoryPlanning, WhatCostsLeastIsTaken) {
  // Everything fits.
  const auto whole = plan(400);
  ASSERT_TRUE(whole);
  EXPECT_FALSE(whole->savings.any());
  EXPECT_EQ(whole->extra_work, 0.0);
  // Two parts cost less than any block.
  const auto parts = plan(210);
  ASSERT_TRUE(parts);
  EXPECT_EQ(parts->savings.parts, 2);
  EXPECT_FALSE(parts->savings.recomputed.any());
  EXPECT_LE(parts->peak, 210u);
  // Where batches cannot be divided, the smaller block is computed again, and where that is not
  // enough, the larger one.
  choices_.divisible = false;
  choices_.tiles = {256};
  EXPECT_EQ(plan(276)->savings.recomputed.names, std::set<std::string>{"a"});
  EXPECT_EQ(plan(275)->savings.recomputed.names, (std::set<std::string>{"a", "b"}));
  EXPECT_EQ(plan(272)->peak, 272u);
  EXPECT_FALSE(plan(271));
}

TEST_F(MemoryPlanning, PicturesAreCodedInTilesWhereTheyDoNotFit) {
  EXPECT_EQ(plan(200)->savings.tile, 0);
  const auto tiled = plan(190);
  ASSERT_TRUE(tiled);
  EXPECT_EQ(tiled->savings.tile, 256);
}

TEST_F(MemoryPlanning, TheSmallestLimitIsEnoughAndOneByteLessIsNot) {
  const std::uint64_t smallest = smallest_peak(choices_, {}, need_);
  const auto plan_of_it = plan(smallest);
  ASSERT_TRUE(plan_of_it);
  EXPECT_EQ(plan_of_it->peak, smallest);
  EXPECT_FALSE(plan(smallest - 1));
  EXPECT_EQ(limit_text(1), "1M");
  EXPECT_EQ(limit_text((std::uint64_t{3} << 20) + 1), "4M");
  EXPECT_LT(smallest_peak(choices_, {.storage = nn::WeightStorage::int8}, need_), smallest);
}

TEST(MemorySavings, AreReadAsTheyAreWritten) {
  const MemorySavings savings{.recomputed = {.names = {"a.b", "c"}},
                              .parts = 3,
                              .storage = nn::WeightStorage::nf4,
                              .tile = 256,
                              .offloaded = 5};
  const MemorySavings read = savings_from_json(to_json(savings), "here");
  EXPECT_EQ(read.recomputed.names, savings.recomputed.names);
  EXPECT_EQ(read.parts, 3);
  EXPECT_EQ(read.storage, savings.storage);
  EXPECT_EQ(read.tile, 256);
  EXPECT_EQ(read.offloaded, 5);
  EXPECT_TRUE(savings_from_json(to_json({.recomputed = {.all = true}}), "here").recomputed.all);
  EXPECT_TRUE(to_json(MemorySavings()).is_null());
  EXPECT_FALSE(savings_from_json(Json(), "here").any());
  for (const Json& wrong : {Json(3), Json{{"micro-batch parts", 0}}, Json{{"base storage", "int3"}},
                            Json{{"recomputed blocks", 7}}})
    expect_error(ErrorCode::bad_format, "here", [&] { savings_from_json(wrong, "here"); });
  EXPECT_EQ(text_of(savings),
            "2 blocks are computed again, batches in 3 parts, base in nf4, autoencoder in tiles of "
            "256 pixels, 5 blocks in host memory");
}

TEST(MemorySize, TakesUnitsOf1024) {
  std::uint64_t bytes = 7;
  const WrittenValue option = byte_size("memory_limit", bytes);
  for (const auto& [text, expected] :
       std::vector<std::pair<std::string, std::uint64_t>>{{"8G", std::uint64_t{8} << 30},
                                                          {"512M", std::uint64_t{512} << 20},
                                                          {"1.5g", std::uint64_t{3} << 29},
                                                          {"64KiB", std::uint64_t{64} << 10},
                                                          {"2TB", std::uint64_t{2} << 40},
                                                          {"", 0}}) {
    option.read({text});
    EXPECT_EQ(bytes, expected) << text;
    const std::string shown = option.shown();
    option.read({shown});
    EXPECT_EQ(bytes, expected) << shown;
  }
  for (const char* text : {"8Q", "0", "-1G", "0G", "8", "G", "nan G", "8 G B", "1e30T", "8GG", "B"})
    expect_error(ErrorCode::invalid_argument, "not an amount of memory above 0",
                 [&] { option.read({text}); });
}

}  // namespace
}  // namespace ringlet::train
