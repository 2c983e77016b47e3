// Where tests compute: the CPU, or the device that RINGLET_TEST_DEVICE names. The tests with the
// label `device` are the same ones on a simulated CUDA device (tests/device), or on a real one.
#pragma once

#include <cstdlib>

#include "ringlet/nn/device.h"

namespace ringlet {

inline c10::Device test_device() {
  static const c10::Device device = [] {
    const char* name = std::getenv("RINGLET_TEST_DEVICE");
    return nn::select_device(name != nullptr ? name : "cpu");
  }();
  return device;
}

/// What the networks of tests of training compute in: RINGLET_TEST_PRECISION, or fp32.
inline c10::ScalarType test_precision() {
  const char* name = std::getenv("RINGLET_TEST_PRECISION");
  return nn::select_precision(name != nullptr ? name : "fp32", c10::kCPU);
}

}  // namespace ringlet
