#include "ringlet/train/loss_scale.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/train/trainer.h"
#include "tests/log_capture.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace ringlet::train {
namespace {

TEST(LossScale, FollowsTheRuleOfGradScaler) {
  LossScale scale = LossScale::dynamic();
  EXPECT_EQ(scale.factor(), 65536.0);
  EXPECT_TRUE(scale.update(false));
  EXPECT_EQ(scale.factor(), 32768.0);
  for (int i = 0; i < 1999; ++i) EXPECT_FALSE(scale.update(true));
  EXPECT_EQ(scale.factor(), 32768.0);
  EXPECT_EQ(scale.good_steps(), 1999);
  scale.update(true);
  EXPECT_EQ(scale.factor(), 65536.0);
  EXPECT_EQ(scale.good_steps(), 0);
  scale.update(true);
  scale.update(false);
  EXPECT_EQ(scale.good_steps(), 0);  // in a row
  while (scale.factor() > 1.0) EXPECT_TRUE(scale.update(false));
  EXPECT_FALSE(scale.update(false));  // a loss that is not scaled up is not to blame
  LossScale none;
  EXPECT_FALSE(none.update(false));
  EXPECT_EQ(none.factor(), 1.0);
  EXPECT_EQ(none.resumed(8.0, 1).factor(), 1.0);
  EXPECT_EQ(scale.resumed(8.0, 3).factor(), 8.0);
  EXPECT_EQ(scale.resumed(8.0, 3).good_steps(), 3);
}

/// A parameter whose loss passes through fp16, with gradients of about `size` there.
struct HalfLoss {
  std::vector<Trainable> parameters = {trainable("w", {16})};
  double size = 1.0;

  LossFunction function() const {
    return [this](std::int64_t n) {
      const at::Tensor w = parameters[0].value.to(at::kHalf);
      return (w.to(at::kFloat) * (size * (1.0 + 0.1 * static_cast<double>(n % 3)))).sum();
    };
  }
};

TrainerOptions options(std::int64_t steps, bool scaling) {
  return {.steps = steps,
          .gradient_accumulation = 2,
          .learning_rate = {.peak = 0.01},
          .loss_scaling = scaling};
}

// 1e-9 is less than half the smallest number of fp16, 6e-8.
TEST(LossScaling, KeepsGradientsThatFp16WouldLose) {
  std::vector<double> norms;
  for (const bool scaling : {false, true}) {
    HalfLoss half;
    half.size = 1e-9;
    Trainer trainer(half.parameters, half.function(), options(1, scaling));
    trainer.run([&](const StepResult& report) {
      norms.push_back(report.gradient_norm);
      return true;
    });
  }
  EXPECT_EQ(norms[0], 0.0);
  EXPECT_NEAR(norms[1], 4.2e-9, 1e-10);
}

TEST(LossScaling, ChangesNothingThatFp16Holds) {
  std::vector<at::Tensor> values;
  for (const bool scaling : {false, true}) {
    HalfLoss half;
    half.size = 1e-3;
    Trainer(half.parameters, half.function(), options(4, scaling)).run();
    values.push_back(half.parameters[0].value.detach());
  }
  EXPECT_TRUE(at::allclose(values[0], values[1], 1e-5, 1e-7));
}

TEST(LossScaling, BacksOffWithoutAnUpdateUntilTheGradientsFit) {
  const LogCapture log;
  HalfLoss half;
  half.size = 100.0;  // 65536 * 100 is far above 65504; 512 * 110 / 2 is not
  const at::Tensor start = half.parameters[0].value.detach().clone();
  Trainer trainer(half.parameters, half.function(), options(12, true));
  std::vector<StepResult> reports;
  trainer.run([&](const StepResult& report) {
    reports.push_back(report);
    EXPECT_EQ(report.skipped, at::equal(half.parameters[0].value, start)) << report.step;
    return true;
  });
  ASSERT_TRUE(reports[0].skipped && reports[0].scaled_down);
  EXPECT_TRUE(std::isfinite(reports[0].loss));
  EXPECT_FALSE(reports.back().skipped);
  EXPECT_NEAR(reports.back().gradient_norm, 4 * 115.0, 1.0);  // the mean of 110 and 120
  EXPECT_EQ(log.warnings(), "");                              // it is how the factor is found
}

// A factor that falls does not end the run as ten bad steps in a row do; a loss that is not finite
// does, at any factor.
TEST(LossScaling, ALossThatIsNotFiniteStillEndsTheRun) {
  const LogCapture log;
  const HalfLoss half;
  Trainer trainer(
      half.parameters,
      [&](std::int64_t n) { return half.function()(n) * std::numeric_limits<double>::quiet_NaN(); },
      options(50, true));
  EXPECT_THROW(trainer.run(), Error);
  EXPECT_EQ(trainer.steps_done(), 10);
}

TEST(LossScaling, ResumesExactly) {
  const LogCapture log;
  const TemporaryFolder folder;
  const auto run = [&](const std::string& out, std::int64_t steps, bool resume) {
    HalfLoss half;
    half.size = 100.0;
    TrainerOptions o = options(steps, true);
    o.checkpoint_folder = folder / out;
    Trainer trainer(half.parameters, half.function(), o);
    if (resume) trainer.resume(*CheckpointFolder(folder / out, 1).latest());
    trainer.run();
    return CheckpointFolder::load(*CheckpointFolder(folder / out, 1).latest());
  };
  const TrainState whole = run("whole", 14, false);
  run("parts", 3, false);  // while it still falls
  run("parts", 11, true);
  const TrainState parts = run("parts", 14, true);
  EXPECT_GT(whole.loss_scale, 0.0);
  EXPECT_LT(whole.loss_scale, 65536.0);
  EXPECT_EQ(parts.loss_scale, whole.loss_scale);
  EXPECT_EQ(parts.loss_scale_steps, whole.loss_scale_steps);
  EXPECT_EQ(parts.skipped, whole.skipped);
  for (const auto& [name, tensor] : whole.tensors)
    EXPECT_TRUE(same_bits(parts.tensors.at(name), tensor)) << name;
}

}  // namespace
}  // namespace ringlet::train
