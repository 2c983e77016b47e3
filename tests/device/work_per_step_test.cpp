// What a training step asks of the device: launches, waits, copies and bytes are exact, so a change
// that adds some fails here. Where a number falls, write the new one down.
#include <cstdint>
#include <string>

#include <gtest/gtest.h>

#include "tests/device/simulated_device.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

class WorkPerStep : public FineTuning {
 protected:
  void SetUp() override {
    if (!device::present()) GTEST_SKIP() << "a real device counts nothing";
  }

  /// Of the third step; the second has all that a step has.
  device::Counters work_of(FineTuneOptions o) {
    o.batch_size = 2;
    o.trainer.steps = 3;
    o.out = folder_ / ("run" + std::to_string(runs_++));
    device::Counters third;
    const bool done = FineTune(o).run({.progress = {}, .step = [&](const StepResult& report) {
                                         if (report.step == 3) {
                                           third = device::counters();
                                           optimizer_ = device::launches_of("_fused_") +
                                                        device::launches_of("_foreach_");
                                           report_ = device::report();
                                         }
                                         device::reset();
                                         return true;
                                       }});
    EXPECT_TRUE(done);
    return third;
  }

  FineTuneOptions with_method(const std::string& method) const {
    FineTuneOptions o = options();
    o.learning = adapt::parse_method(method);
    return o;
  }

  int runs_ = 0;
  std::int64_t optimizer_ = 0;
  std::string report_;
};

TEST_F(WorkPerStep, TheHostWaitsOnceAndCopiesTwice) {
  for (const char* method : {"lora(rank=2)", "trm(rank=2)+tr(rank=2)", "vera(rank=8)",
                             "fourierft(n=20)", "trm(rank=2)+lora(rank=2)+magnitude"}) {
    SCOPED_TRACE(method);
    const device::Counters step = work_of(with_method(method));
    EXPECT_EQ(step.waits, 1);
    EXPECT_LE(step.host_to_device, 2);
    EXPECT_EQ(step.pageable, 1);  // loss and norm, on their way back
    EXPECT_EQ(step.device_to_host, 1);
    EXPECT_EQ(step.device_to_host_bytes, 8);
    EXPECT_EQ(step.double_launches, 10);  // the noise: Box-Muller in fp64, as on the CPU
    EXPECT_GT(optimizer_, 0);
    EXPECT_LE(optimizer_, 10);
  }
}

TEST_F(WorkPerStep, SoItIsWithAveragesOffsetsAndWeights) {
  FineTuneOptions o = with_method("lora(rank=2)");
  o.trainer.ema_decay = 0.9;
  o.trainer.gradient_accumulation = 1;
  o.loss.noise_offset = 0.1;
  o.gradient_checkpointing = true;
  const device::Counters step = work_of(o);
  EXPECT_EQ(step.waits, 1);
  EXPECT_LE(step.host_to_device, 2);
  o.loss.rule.min_snr_gamma = 5.0;
  EXPECT_LE(work_of(o).host_to_device, 2);
}

// The tiny model at 16 pixels, batch 2.
TEST_F(WorkPerStep, LaunchesAndBytesAreNoMoreThanThese) {
  struct Work {
    const char* method;
    std::int64_t launches, peak_bytes;
  };
  for (const Work& most :
       {Work{"lora(rank=2)", 925, 7249408}, Work{"trm(rank=2)+lora(rank=2)", 1025, 7900160},
        Work{"oft(block=2)", 870, 7564800}}) {
    const device::Counters step = work_of(with_method(most.method));
    EXPECT_LE(step.launches, most.launches) << most.method << "\n" << report_;
    EXPECT_LE(step.peak_bytes, most.peak_bytes) << most.method;
  }
}

// What is planned is what is measured, whatever is computed again and in however many parts.
TEST_F(WorkPerStep, ThePlanIsThePeak) {
  struct Case {
    const char* name;
    MemorySavings savings;
  };
  const Case cases[] = {
      {"all kept", {}},
      {"all again", {.recomputed = {.all = true}}},
      {"parts", {.parts = 4}},
      {"some again",
       {.recomputed = {.names = {"up_blocks.0.resnets.0", "up_blocks.1.resnets.0"}}, .parts = 2}}};
  for (const char* method : {"lora(rank=2)", "trm(rank=2)+lora(rank=2)"})
    for (const Case& one : cases) {
      FineTuneOptions o = with_method(method);
      o.batch_size = 4;
      o.crop.size = {32, 32};
      o.savings = one.savings;
      o.out = folder_ / ("plan" + std::to_string(runs_++));
      FineTune run(o);
      device::reset();
      EXPECT_TRUE(run.run({}));
      const auto peak = static_cast<double>(device::counters().peak_bytes);
      EXPECT_NEAR(static_cast<double>(run.plan().expected_bytes) / peak, 1.0, 0.05)
          << method << ", " << one.name << ": " << peak;
    }
}

// What is chosen for a limit keeps it, down to the narrowest base and blocks in host memory.
TEST_F(WorkPerStep, ALimitIsKept) {
  FineTuneOptions o = with_method("lora(rank=2)");
  o.batch_size = 4;
  o.crop.size = {32, 32};
  o.memory_limit = std::uint64_t{1} << 40;
  o.out = folder_ / "free";
  const std::uint64_t all = FineTune(o).plan().expected_bytes;
  for (const double share : {0.8, 0.6, 0.45}) {
    o.memory_limit = static_cast<std::uint64_t>(share * static_cast<double>(all));
    o.out = folder_ / ("limit" + std::to_string(runs_++));
    FineTune run(o);
    EXPECT_TRUE(run.options().savings.any());
    device::reset();
    EXPECT_TRUE(run.run({}));
    const auto peak = static_cast<double>(device::counters().peak_bytes);
    EXPECT_LE(peak, 1.05 * static_cast<double>(o.memory_limit)) << share;
    EXPECT_NEAR(static_cast<double>(run.plan().expected_bytes) / peak, 1.0, 0.05)
        << share << ": " << text_of(run.options().savings);
  }
  o.memory_limit = 1 << 20;
  EXPECT_THROW(FineTune{o}, Error);
}

// However many tensors there are: the whole optimiser is these launches.
TEST_F(WorkPerStep, TheOptimiserIsAFewLaunches) {
  FineTuneOptions o = with_method("trm(rank=2)+lora(rank=2)");
  o.trainer.ema_decay = 0.9;
  work_of(o);
  EXPECT_GT(optimizer_, 0) << report_;
  EXPECT_LE(optimizer_, 10) << report_;
}

}  // namespace
}  // namespace ringlet::train
