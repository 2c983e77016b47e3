// Training on a CUDA device: the CPU's numbers, whatever learns.
#include <cmath>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/device/simulated_device.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

class OnDevice : public FineTuning {
 protected:
  OnDevice() {
    if (device::present()) device::choose(test_device().index());
  }
  ~OnDevice() override {
    if (device::present()) device::choose(-1);
  }

  /// The same options on the CPU and on the device.
  void expect_same_numbers(FineTuneOptions o, const std::string& name, double relative = 1e-4) {
    SCOPED_TRACE(name);
    const auto rows_on = [&](c10::Device device, const std::string& out) {
      o.load.device = device;
      o.out = folder_ / (out + std::to_string(runs_++));
      EXPECT_TRUE(run(o));
      return metrics(o);
    };
    const auto cpu = rows_on(c10::kCPU, "cpu"), cuda = rows_on(test_device(), "cuda");
    ASSERT_EQ(cpu.size(), cuda.size());
    for (std::size_t i = 0; i < cpu.size(); ++i) {
      EXPECT_FALSE(cuda[i].skipped);
      EXPECT_NEAR(cuda[i].loss, cpu[i].loss, relative * std::abs(cpu[i].loss));
      EXPECT_NEAR(cuda[i].gradient_norm, cpu[i].gradient_norm,
                  2.0 * relative * std::abs(cpu[i].gradient_norm));
    }
  }

  FineTuneOptions with_method(const std::string& method) const {
    FineTuneOptions o = options();
    o.learning = adapt::parse_method(method);
    return o;
  }

 private:
  int runs_ = 0;
};

// One of each way of computing.
TEST_F(OnDevice, AdaptersLearnTheCpusNumbers) {
  for (const char* method : {"trm(rank=2)+tr(rank=2)", "lora(rank=2)+magnitude", "vera(rank=8)",
                             "fourierft(n=20)", "boft(block=2,factors=1)+loha(rank=2)",
                             "hra(rank=2)+lokr", "foura(rank=2)", "lora(rank=2,init=pissa)"})
    expect_same_numbers(with_method(method), method);
}

TEST_F(OnDevice, ANarrowBaseGivesTheCpusNumbers) {
  for (const nn::WeightStorage storage : {nn::WeightStorage::bf16, nn::WeightStorage::fp8,
                                          nn::WeightStorage::int8, nn::WeightStorage::nf4}) {
    FineTuneOptions o = with_method("trm(rank=2)+lora(rank=2)+magnitude");
    o.targets.presets = {"all"};
    o.load.storage = storage;
    expect_same_numbers(o, nn::weight_storage_name(storage));
  }
}

TEST_F(OnDevice, EverythingThatDrawsOrHasAStateLearnsTheCpusNumbers) {
  FineTuneOptions o = all_options("all");
  o.trainer.steps = 3;
  o.dropout = {.input = 0.1, .rank = 0.2, .module = 0.2};
  expect_same_numbers(o, "all");
}

// The start of trm is neither a parameter nor a constant.
TEST_F(OnDevice, PenaltiesAreTheCpus) {
  FineTuneOptions o = with_method("trm(rank=2)+lora(rank=2)");
  o.identity_penalty = 0.1;
  o.orthogonal_penalty = 0.2;
  expect_same_numbers(o, "penalties");
}

// All weights, kept in fp32, whose norms meet inputs in 16 bits.
TEST_F(OnDevice, AllWeightsLearnInEveryPrecision) {
  FineTuneOptions o = options();
  o.learning = AllWeights{};
  o.train_text_encoder = true;
  o.trainer.learning_rate.peak = 1e-3;
  for (const auto& [type, relative] :
       {std::pair{at::kFloat, 1e-4}, std::pair{at::kBFloat16, 3e-2}}) {
    o.load.precision = type;
    expect_same_numbers(o, at::toString(type), relative);
  }
}

// bf16 where the device computes it, otherwise fp16 with a scaled loss.
TEST_F(OnDevice, ThePrecisionOfTrainingIsTheOneThatTheDeviceComputes) {
  if (!device::present()) GTEST_SKIP() << "a real device";
  for (const int capability : {7, 8, 9}) {
    device::set_compute_capability(capability);
    const auto training = nn::select_precision("", test_device(), nn::Work::training);
    EXPECT_EQ(training, capability < 8 ? at::kHalf : at::kBFloat16);
    EXPECT_EQ(nn::select_precision("auto", test_device()), at::kHalf);
  }
  device::set_compute_capability(8);
}

TEST_F(OnDevice, HalfPrecisionLearnsWithAScaledLossAndResumesBitForBit) {
  FineTuneOptions whole = with_method("lora(rank=2)");
  whole.load.precision = at::kHalf;
  whole.trainer.steps = 8;
  whole.trainer.checkpoint_every = 1;
  whole.out = folder_ / "whole";
  EXPECT_TRUE(run(whole));
  const auto rows = metrics(whole);
  EXPECT_FALSE(rows.back().skipped);
  FineTuneOptions parts = whole;
  parts.out = folder_ / "parts";
  EXPECT_FALSE(run(parts, 3));
  parts.resume = true;
  EXPECT_TRUE(run(parts));
  const auto last = [](const FineTuneOptions& o) {
    return CheckpointFolder::load(*CheckpointFolder(o.out / "checkpoints", 1).latest());
  };
  const TrainState a = last(whole), b = last(parts);
  EXPECT_GT(a.loss_scale, 0.0);
  EXPECT_EQ(a.loss_scale, b.loss_scale);
  EXPECT_EQ(a.loss_scale_steps, b.loss_scale_steps);
  for (const auto& [name, tensor] : a.tensors)
    EXPECT_TRUE(same_bits(b.tensors.at(name), tensor)) << name;
}

TEST_F(OnDevice, TheDevicesMemoryIsShownAndItsEndIsSaid) {
  FineTuneOptions o = with_method("lora(rank=2)");
  EXPECT_TRUE(run(o));
  if (!device::present()) GTEST_SKIP() << "a real device";
  const auto peak = static_cast<std::int64_t>(nn::peak_memory(test_device()));
  EXPECT_GT(peak, device::counters().current_bytes);
  o.out = folder_ / "too large";
  device::limit_memory(device::counters().current_bytes + (1 << 20));
  try {
    run(o);
    ADD_FAILURE() << "enough memory";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
    EXPECT_NE(std::string(error.what()).find("GPU"), std::string::npos) << error.what();
    EXPECT_NE(error.hint().find("gradient_checkpointing"), std::string::npos);
  }
  device::limit_memory(std::int64_t{24} << 30);
}

// A run leaves nothing on the device.
TEST_F(OnDevice, NothingIsLeftOnTheDevice) {
  if (!device::present()) GTEST_SKIP() << "a real device";
  const std::int64_t before = device::counters().current_bytes;
  EXPECT_TRUE(run(with_method("vera(rank=8)")));
  EXPECT_EQ(device::counters().current_bytes, before);
}

}  // namespace
}  // namespace ringlet::train
