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
  EXPECT_EQ(select_precision("auto", c10::kCPU, Work::training), c10::kFloat);
  for (const char* name : {"float", "FP16", "fp8"})
    expect_error(ErrorCode::invalid_argument, "use auto, fp32, bf16, fp16",
                 [&] { select_precision(name, c10::kCPU); });
}

TEST(Device, AutomaticPrecisionIsOneThatTheDeviceComputesWell) {
  EXPECT_NE(select_precision("auto", c10::kCPU), c10::kHalf);  // slow and inexact on processors
  EXPECT_EQ(select_precision("auto", c10::Device(c10::kCUDA, 0)), c10::kHalf);
  EXPECT_EQ(select_precision("", c10::kCPU, Work::training), c10::kFloat);
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

// What the CUDA runtime, cuBLAS and LibTorch say, and what it means for who reads it.
TEST(TorchErrors, CudasAreToldAsSuchWithWhatToChange) {
  const auto expect = [](const char* text, ErrorCode code, const char* what, const char* hint) {
    const Error error = to_error(std::runtime_error(text), "here");
    EXPECT_EQ(error.code(), code) << text;
    EXPECT_NE(error.message().find(what), std::string::npos) << error.message();
    EXPECT_NE(error.hint().find(hint), std::string::npos) << error.hint();
  };
  expect("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of",
         ErrorCode::out_of_memory, "the GPU has not enough free memory", "gradient_checkpointing");
  expect("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
         ErrorCode::out_of_memory, "the GPU", "nvidia-smi");
  expect("The NVIDIA driver on your system is too old (found version 11040).",
         ErrorCode::unsupported, "driver is too old", "update the NVIDIA driver");
  expect("CUDA error: CUDA driver version is insufficient for CUDA runtime version",
         ErrorCode::unsupported, "driver is too old", "device=cpu");
  expect("CUDA error: no kernel image is available for execution on the device\nCUDA kernel",
         ErrorCode::unsupported, "compute capability", "device=cpu");
  expect("CUDA error: invalid device ordinal", ErrorCode::unsupported, "cannot be used",
         "CUDA_VISIBLE_DEVICES");
  expect("CUDA error: unspecified launch failure\nCUDA kernel errors might be", ErrorCode::io,
         "CUDA error: unspecified launch failure", "resume");
  expect("CUDA error: an illegal memory access was encountered", ErrorCode::io, "illegal memory",
         "CUDA_LAUNCH_BLOCKING=1");
  expect("upsample_bilinear2d_backward_out_cuda does not have a deterministic implementation, but",
         ErrorCode::unsupported, "does not have a deterministic implementation", "deterministic");
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
