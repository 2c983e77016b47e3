// The simulated device itself: each kind of mistake that it is there for is caught.
#include "tests/device/simulated_device.h"

#include <ATen/ATen.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <gtest/gtest.h>

#include "ringlet/nn/device.h"

namespace ringlet::device {
namespace {

const at::TensorOptions kOnDevice = at::TensorOptions(at::kFloat).device(at::kCUDA, 0);

/// The tests of what only a simulation sees.
class SimulatedDevice : public testing::Test {
 protected:
  void SetUp() override {
    if (!present()) GTEST_SKIP() << "a real device";
    reset();
  }
};
using SimulatedDeviceDeathTest = SimulatedDevice;

/// The text of the c10::Error that the action throws, or "".
template <class Action>
std::string refusal(Action action) {
  try {
    action();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "";
}

void expect_refused(const std::string& text, const std::string& words) {
  EXPECT_NE(text.find(words), std::string::npos) << '"' << text << '"';
}

TEST_F(SimulatedDeviceDeathTest, HostCodeThatTouchesDeviceMemoryEndsTheProgram) {
  const at::Tensor x = at::ones({4}, kOnDevice);
  EXPECT_EXIT(std::exit(static_cast<int>(x.const_data_ptr<float>()[0])),
              testing::ExitedWithCode(99), "host code touched device memory.*");
  EXPECT_EXIT((x.mutable_data_ptr<float>()[3] = 1.0F, std::exit(0)), testing::ExitedWithCode(99),
              "host code touched device memory");
}

TEST_F(SimulatedDevice, MixedDevicesAreRefused) {
  const at::Tensor x = at::ones({4}, kOnDevice);
  const char* kMixed = "Expected all tensors to be on the same device";
  expect_refused(refusal([&] { x + at::ones({4}); }), kMixed);
  expect_refused(refusal([&] { x + at::ones({4}, kOnDevice.device(at::kCUDA, 1)); }), kMixed);
  expect_refused(refusal([&] { at::mm(x.view({2, 2}), at::ones({2, 2})); }), kMixed);
  // Pointwise operators take a number from the host, and indexing takes host indices.
  EXPECT_EQ((x + at::ones({})).sum().item<double>(), 8.0);
  EXPECT_EQ(x.index({at::tensor({0, 3})}).numel(), 2);
  // Others take none: the counts of an optimiser's steps.
  const at::Tensor value = at::ones({4}, kOnDevice);
  expect_refused(refusal([&] {
                   at::_fused_adamw_({value}, {x.clone()}, {x.clone()}, {x.clone()}, {},
                                     {at::ones({})}, 0.1, 0.9, 0.99, 0.0, 1e-8, false, false);
                 }),
                 "without dimensions");
}

TEST_F(SimulatedDevice, AnOperatorWithoutACudaKernelIsRefused) {
  expect_refused(refusal([] { at::histogram(at::ones({4}, kOnDevice), 2); }), "no kernel");
}

TEST_F(SimulatedDevice, ANormOfMixedTypesIsRefused) {
  const at::Tensor x = at::ones({1, 4, 2}, kOnDevice.dtype(at::kHalf));
  const at::Tensor wide = at::ones({4}, kOnDevice);
  expect_refused(refusal([&] { at::group_norm(x, 2, wide, wide); }), "but found Float");
  expect_refused(refusal([&] { at::layer_norm(x.transpose(1, 2), {4}, wide, wide); }),
                 "but found Float");
  EXPECT_EQ(at::group_norm(x, 2, wide.to(at::kHalf), wide.to(at::kHalf)).numel(), 8);
}

TEST_F(SimulatedDevice, MemoryOnAnotherDeviceThanTheChosenOneIsRefused) {
  choose(1);
  expect_refused(refusal([] { at::ones({4}, kOnDevice); }), "cuda:1 is the chosen device");
  at::ones({4}, kOnDevice.device(at::kCUDA, 1));
  choose(-1);
}

TEST_F(SimulatedDevice, NewMemoryIsFilledWithNaN) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16})
    EXPECT_TRUE(at::empty({70}, kOnDevice.dtype(type)).isnan().all().item<bool>());
}

TEST_F(SimulatedDevice, MoreMemoryThanThereIsIsRefused) {
  limit_memory(counters().current_bytes + 4096);
  expect_refused(refusal([] { at::ones({2048}, kOnDevice); }), "CUDA out of memory");
  limit_memory(std::int64_t{24} << 30);
  at::ones({2048}, kOnDevice);
}

TEST_F(SimulatedDevice, CountsBytesLaunchesCopiesAndWaits) {
  const std::int64_t before = counters().current_bytes;
  {
    const at::Tensor x = at::ones({1000}, kOnDevice);  // empty and fill_
    EXPECT_EQ(counters().current_bytes, before + 4096);
    EXPECT_EQ(counters().launches, 1);
    const at::Tensor y = (x * 2.0).view({10, 100}).t();
    EXPECT_EQ(counters().launches, 2) << report();
    EXPECT_EQ(launches_of("mul."), 1);
    EXPECT_EQ(counters().waits, 0);
    EXPECT_EQ(y.sum().item<double>(), 2000.0);
    EXPECT_EQ(counters().waits, 1);
    EXPECT_EQ(counters().double_launches, 0);
  }
  EXPECT_EQ(counters().current_bytes, before);
  EXPECT_GE(counters().peak_bytes, before + 8192);
  reset();
  EXPECT_EQ(counters().peak_bytes, before);

  const at::Tensor host = at::ones({100});
  const at::Tensor from_pageable = host.to(at::kCUDA);
  EXPECT_EQ(counters().host_to_device, 1);
  EXPECT_EQ(counters().host_to_device_bytes, 400);
  EXPECT_EQ(counters().pageable, 1);
  EXPECT_EQ(counters().waits, 1);
  reset();
  const at::Tensor from_pinned = nn::to_device(host, c10::Device(c10::kCUDA, 0));
  EXPECT_TRUE(at::equal(from_pinned.cpu(), host));
  EXPECT_EQ(counters().host_to_device, 1);
  EXPECT_EQ(counters().device_to_host, 1);
  EXPECT_EQ(counters().device_to_host_bytes, 400);
  EXPECT_EQ(counters().pageable, 1);  // the way back
  EXPECT_EQ(counters().waits, 1);
}

TEST_F(SimulatedDevice, AListOfTensorsIsOneLaunchAsOnCuda) {
  const std::vector<at::Tensor> list(30, at::ones({8}, kOnDevice));
  reset();
  at::_foreach_mul_(list, 0.5);
  EXPECT_EQ(counters().launches, 1) << report();
}

TEST_F(SimulatedDevice, SaysWhatLibTorchAsksOfADevice) {
  EXPECT_EQ(nn::cuda_state().devices, 2);
  EXPECT_EQ(nn::select_device("auto"), c10::Device(c10::kCUDA, 0));
  EXPECT_EQ(nn::compute_capability({c10::kCUDA, 0}), 8);
  const at::Tensor x = at::ones({1000}, kOnDevice);
  EXPECT_EQ(nn::peak_memory({c10::kCUDA, 0}) % 512, 0U);
  EXPECT_GE(nn::peak_memory({c10::kCUDA, 0}), 4096U);
  EXPECT_GT(c10::getDeviceAllocator(c10::kCUDA)->getMemoryInfo(0).first, std::size_t{1} << 30);
}

}  // namespace
}  // namespace ringlet::device
