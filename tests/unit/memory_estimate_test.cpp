#include "ringlet/train/memory_estimate.h"

#include <optional>

#include <gtest/gtest.h>

#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet::train {
namespace {

class MemoryEstimate : public testing::Test {
 protected:
  MemoryEstimate() {
    golden::write_folder(folder_ / "model", "sd1");
    model_.emplace(pipeline::StableDiffusion::open(folder_ / "model"));
  }
  double bytes(std::int64_t parameters, std::int64_t resolution, std::int64_t rows,
               bool checkpointing = false) const {
    return static_cast<double>(
        expected_training_bytes(*model_, parameters, resolution, rows, checkpointing));
  }
  double weights() const {
    double sum = 0.0;
    for (const auto& component : model_->indices())
      for (const auto& entry : component.second.tensors)
        sum += static_cast<double>(entry.second.nbytes());
    return sum;
  }

  TemporaryFolder folder_;
  std::optional<pipeline::StableDiffusion> model_;
};

TEST_F(MemoryEstimate, HoldsTheWeightsAtLeast) {
  EXPECT_GT(bytes(0, 32, 1), weights());
  EXPECT_LT(bytes(0, 32, 1), 20.0 * weights());
}

TEST_F(MemoryEstimate, AParameterTakesFourNumbers) {
  EXPECT_NEAR(bytes(1000000, 32, 1) - bytes(0, 32, 1), 16e6, 1.0);
}

TEST_F(MemoryEstimate, ActivationsGrowWithRowsAndPixels) {
  const double one = bytes(0, 32, 1) - weights();
  EXPECT_GT(one, 0.0);
  EXPECT_NEAR(bytes(0, 32, 3) - weights(), 3.0 * one, 3.0);
  EXPECT_NEAR(bytes(0, 64, 1) - weights(), 4.0 * one, 4.0);
}

TEST_F(MemoryEstimate, CheckpointingTakesLess) {
  EXPECT_LT(bytes(0, 64, 4, true), bytes(0, 64, 4));
  EXPECT_GT(bytes(0, 64, 4, true), weights());
}

}  // namespace
}  // namespace ringlet::train
