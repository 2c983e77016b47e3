// Processors, number types and how fast they are here.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <utility>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

namespace ringlet::nn {

/// Whether a CUDA device can be used. libtorch_cuda is not linked: it is loaded here, once, when an
/// NVIDIA driver is present. `reason` says why there is none.
struct CudaState {
  int devices = 0;
  std::string reason;
};
CudaState cuda_state();

/// "auto" (CUDA when there is one), "cpu", "cuda" or "cuda:1". Throws Error(invalid_argument), and
/// Error(unsupported) with the reason when CUDA is asked for and not there.
c10::Device select_device(const std::string& name);

/// The tensor on a device. From the CPU to CUDA through pinned memory, without waiting for the
/// copy.
at::Tensor to_device(const at::Tensor& tensor, c10::Device device);

/// Speed of a square matrix product of this type on the CPU, in GFLOP/s; takes about 50 ms.
double measure_matmul_speed(c10::ScalarType type);

/// "fp32", "bf16", "fp16" or "auto"; on the CPU "auto" measures and takes bf16 only where it is
/// clearly faster than fp32, on CUDA it takes fp16. "" is fp32 on the CPU and "auto" on CUDA.
/// Throws Error(invalid_argument).
c10::ScalarType select_precision(const std::string& name, c10::Device device);

/// The types of numbers by name.
inline constexpr std::array<std::pair<const char*, c10::ScalarType>, 3> kPrecisionNames = {
    {{"fp32", c10::kFloat}, {"fp16", c10::kHalf}, {"bf16", c10::kBFloat16}}};

/// "fp32", "bf16", "fp16".
std::string precision_name(c10::ScalarType type);

}  // namespace ringlet::nn
