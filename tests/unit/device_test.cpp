#include "ringlet/nn/device.h"

#include <new>
#include <stdexcept>

#include <gtest/gtest.h>

#include "ringlet/nn/torch_errors.h"
#include "tests/expect_error.h"

namespace ringlet::nn {
namespace {

TEST(Device, NamesAreChecked) {
  EXPECT_TRUE(select_device("cpu").is_cpu());
  for (const char* name : {"", "gpu", "CPU", "mps", "cudax", "cpu:0", " cpu"})
    expect_error(ErrorCode::invalid_argument, "is not a device", [&] { select_device(name); });
}

TEST(Device, WithoutCudaTheReasonIsGiven) {
  const CudaState state = cuda_state();
  if (state.devices > 0) GTEST_SKIP() << "this machine has a CUDA device";
  EXPECT_FALSE(state.reason.empty());
  EXPECT_TRUE(select_device("auto").is_cpu());
  for (const char* name : {"cuda", "cuda:0"})
    expect_error(ErrorCode::unsupported, state.reason, [&] { select_device(name); });
}

TEST(Device, CudaIndexesAreChecked) {
  if (cuda_state().devices == 0) GTEST_SKIP() << "this machine has no CUDA device";
  EXPECT_TRUE(select_device("auto").is_cuda());
  EXPECT_EQ(select_device("cuda:0").index(), 0);
  for (const char* name : {"cuda:", "cuda:-1", "cuda:0x", "cuda:999", "cuda:99999999999"})
    expect_error(ErrorCode::invalid_argument, "there is no device", [&] { select_device(name); });
}

TEST(Device, PrecisionNames) {
  for (const char* name : {"fp32", "bf16", "fp16"})
    EXPECT_EQ(precision_name(select_precision(name, c10::kCPU)), name);
  EXPECT_EQ(select_precision("", c10::kCPU), c10::kFloat);
  for (const char* name : {"float", "FP16", "fp8"})
    expect_error(ErrorCode::invalid_argument, "use auto, fp32, bf16, fp16",
                 [&] { select_precision(name, c10::kCPU); });
}

TEST(Device, AutomaticPrecisionIsOneThatTheDeviceComputesWell) {
  EXPECT_NE(select_precision("auto", c10::kCPU), c10::kHalf);  // slow and inexact on processors
  EXPECT_EQ(select_precision("auto", c10::Device(c10::kCUDA, 0)), c10::kHalf);
  EXPECT_GT(measure_matmul_speed(c10::kFloat), 0.0);
}

TEST(TorchErrors, BecomeTheRightKind) {
  EXPECT_EQ(to_error(std::bad_alloc(), "here").code(), ErrorCode::out_of_memory);
  EXPECT_EQ(to_error(std::runtime_error("CUDA out of memory. Tried"), "here").code(),
            ErrorCode::out_of_memory);
  EXPECT_EQ(to_error(std::runtime_error("DefaultCPUAllocator: can't allocate memory: you"), "here")
                .code(),
            ErrorCode::out_of_memory);
  const Error defect = to_error(std::runtime_error("bad shape\nframe #0: …"), "here");
  EXPECT_EQ(defect.code(), ErrorCode::internal);
  EXPECT_EQ(defect.message(), "bad shape");  // without the stack of LibTorch
  EXPECT_EQ(defect.where(), "here");
}

TEST(TorchErrors, ErrorsAndResultsPassThrough) {
  EXPECT_EQ(with_ringlet_errors("here", [] { return 7; }), 7);
  expect_error(ErrorCode::mismatch, "there: x", [] {
    with_ringlet_errors("here", [] { throw Error(ErrorCode::mismatch, "there", "x"); });
  });
  expect_error(ErrorCode::internal, "here: y",
               [] { with_ringlet_errors("here", [] { throw std::logic_error("y"); }); });
}

}  // namespace
}  // namespace ringlet::nn
