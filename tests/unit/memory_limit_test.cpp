// Training within a memory limit: what is chosen changes no gradient.
#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/core/memory_use.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/pipeline/model_families.h"
#include "tests/expect_error.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

class MemoryLimit : public FineTuning {
 protected:
  /// Losses and gradients that differ by rounding alone.
  static void expect_close_metrics(const FineTuneOptions& a, const FineTuneOptions& b) {
    const auto x = metrics(a), y = metrics(b);
    ASSERT_EQ(x.size(), y.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_NEAR(x[i].loss, y[i].loss, 1e-4 * std::abs(y[i].loss)) << "step " << x[i].step;
      EXPECT_NEAR(x[i].gradient_norm, y[i].gradient_norm, 1e-3 * y[i].gradient_norm)
          << "step " << x[i].step;
    }
  }
  FineTuneOptions planned(const std::string& out, std::uint64_t limit) const {
    FineTuneOptions o = options(out);
    o.batch_size = 4;
    o.crop.size = {32, 32};
    o.memory_limit = limit;
    return o;
  }
};

// Prior preservation, accumulation, penalties, every dropout, offsets and learning text encoders.
TEST_F(MemoryLimit, PartsOfABatchAreTheWholeBatch) {
  const auto dropped = [this](const std::string& out) {
    FineTuneOptions o = all_options(out);
    o.trainer.steps = 3;
    o.batch_size = 3;
    o.dropout = {.input = 0.2, .rank = 0.2, .module = 0.2};
    return o;
  };
  const FineTuneOptions whole = dropped("whole");
  EXPECT_TRUE(run(whole));
  for (const std::int64_t parts : {2, 3}) {  // 1 + 2, and 1 + 1 + 1
    FineTuneOptions o = dropped("parts" + std::to_string(parts));
    o.savings.parts = parts;
    EXPECT_TRUE(run(o));
    expect_close_metrics(o, whole);
  }
}

TEST_F(MemoryLimit, SomeBlocksComputedAgainGiveTheSameNumbers) {
  FineTuneOptions plain = options("plain");
  EXPECT_TRUE(run(plain));
  FineTuneOptions some = options("some");
  some.savings.recomputed.names = {"down_blocks.0.resnets.0",
                                   "mid_block.attentions.0.transformer_blocks.0"};
  EXPECT_TRUE(run(some));
  expect_same_metrics(some, plain);
}

TEST_F(MemoryLimit, OptionsOfTheUserAreNotChosenAgain) {
  FineTuneOptions o = planned("given", std::uint64_t{1} << 40);
  o.gradient_checkpointing = true;
  const std::uint64_t given = FineTune(o).plan().expected_bytes;
  o.gradient_checkpointing = false;
  const FineTune open(o);
  EXPECT_GT(open.plan().expected_bytes, given);
  EXPECT_FALSE(open.options().savings.any());  // everything fits
}

TEST_F(MemoryLimit, BlocksAreNamedAsTheNetworksAre) {
  const FineTuneOptions o = options();
  pipeline::LoadOptions load;
  const auto model = pipeline::open_text_to_image_model(o.model, load);
  std::size_t named = 0;
  for (const pipeline::StepBlock& block : model->training_step({.size = {32, 32}})) {
    if (block.name.empty()) continue;
    ++named;
    const auto& layers = model->networks().at("unet").index.layers;
    EXPECT_TRUE(std::ranges::any_of(layers, [&](const auto& layer) {
      return layer.first.starts_with(block.name + ".");
    })) << block.name;
    EXPECT_GT(block.inside, 0.0);
    EXPECT_GT(block.work, 0.0);
  }
  EXPECT_GT(named, 5u);
}

TEST_F(MemoryLimit, TheErrorNamesTheSmallestLimitAndThatOneIsEnough) {
  FineTuneOptions o = planned("tight", 1 << 20);
  std::string hint;
  try {
    FineTune run(o);
    ADD_FAILURE() << "a program in a megabyte";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
    hint = error.hint();
  }
  const auto begin = hint.find("memory_limit=") + 13, end = hint.find('M', begin);
  ASSERT_NE(end, std::string::npos) << hint;
  const std::uint64_t smallest = std::stoull(hint.substr(begin, end - begin)) << 20;
  EXPECT_GT(smallest, resident_bytes() / 2);
}

}  // namespace
}  // namespace ringlet::train
