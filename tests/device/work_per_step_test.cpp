// What a training step asks of the device: launches, waits and copies are exact, so a change that
// adds some fails here. Where a number falls, write the new one down.
#include <cstdint>
#include <map>
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
    const bool done = FineTune(o).run({.progress = {}, .step = [&](const StepReport& report) {
                                         if (report.step == 3) {
                                           third = device::counters();
                                           optimizer_ = device::launches_of("_fused_adamw_");
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
                             "fourierft(n=20)", "trm(rank=2)+lora(rank=2)+magnitude+bias"}) {
    SCOPED_TRACE(method);
    const device::Counters step = work_of(with_method(method));
    EXPECT_EQ(step.waits, 1);
    EXPECT_LE(step.host_to_device, 2);
    EXPECT_EQ(step.pageable, 1);  // loss and norm, on their way back
    EXPECT_EQ(step.device_to_host, 1);
    EXPECT_EQ(step.device_to_host_bytes, 8);
    EXPECT_EQ(step.double_launches, 0);
    EXPECT_EQ(optimizer_, 1);
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
  o.loss.min_snr_gamma = 5.0;  // one copy more: the weights
  EXPECT_LE(work_of(o).host_to_device, 3);
}

TEST_F(WorkPerStep, LaunchesAreThese) {
  const std::map<std::string, std::int64_t> expected = {
      {"lora(rank=2)", 0},
      {"trm(rank=2)+lora(rank=2)", 0},
      {"oft(block=2)", 0},
  };
  for (const auto& [method, launches] : expected)
    EXPECT_EQ(work_of(with_method(method)).launches, launches) << method << "\n" << report_;
}

}  // namespace
}  // namespace ringlet::train
