// Processors, number types and how fast they are here.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

namespace ringlet::nn {

/// Whether a CUDA device can be used. libtorch_cuda is not linked: it is loaded here, once, when an
/// NVIDIA driver is present or the program has loaded it already. `reason` says why there is none,
/// and `fix` what to do about it. From then on fp32 means fp32: see allow_tf32().
struct CudaState {
  int devices = 0;
  std::string reason;
  std::string fix;
  bool driver = false;  ///< an NVIDIA driver is loaded: somebody meant a GPU to be used
};
CudaState cuda_state();

/// "auto" (CUDA when there is one), "cpu", "cuda" or "cuda:1". Throws Error(invalid_argument), and
/// Error(unsupported) with the reason when CUDA is asked for and not there. "auto" says why it
/// takes the CPU: as a warning where there is a driver, otherwise in the debug log.
c10::Device select_device(const std::string& name);

/// The major number of a CUDA device's compute capability (8 = Ampere); 0 where the CUDA runtime
/// does not say.
int compute_capability(c10::Device device);

/// The most memory that the process has used so far, in bytes: of a CUDA device what LibTorch has
/// reserved there, otherwise the process's resident memory.
std::uint64_t peak_memory(c10::Device device);

/// Bytes of a CUDA device that nobody uses, with what LibTorch has reserved there and does not use.
std::uint64_t free_memory(c10::Device device);

/// Whether fp32 products and convolutions on CUDA may round their inputs to TF32's ten bits of
/// mantissa, which is several times as fast. Off unless asked for.
void allow_tf32(bool allow);
bool tf32_allowed();

/// Makes operators take deterministic algorithms: two runs on one CUDA device then agree bit for
/// bit. Slower, and an operator that has none throws (to_error says so). Call it before anything is
/// computed on the device.
void use_deterministic_algorithms(bool deterministic);

/// The tensor on a device. From the CPU to CUDA through pinned memory, without waiting for the
/// copy.
at::Tensor to_device(const at::Tensor& tensor, c10::Device device);

/// Speed of a square matrix product of this type on the CPU, in GFLOP/s; takes about 50 ms.
double measure_matmul_speed(c10::ScalarType type);

/// What a precision is chosen for.
enum class Work { inference, training };

/// "fp32", "bf16", "fp16" or "auto"; on the CPU "auto" measures and takes bf16 only where it is
/// clearly faster than fp32. On CUDA it takes fp16, which has the most digits of the 16-bit types;
/// for training bf16 where the device computes it (compute capability 8), whose gradients need no
/// loss scaling. "" is fp32 on the CPU and "auto" on CUDA. Throws Error(invalid_argument).
c10::ScalarType select_precision(const std::string& name, c10::Device device,
                                 Work work = Work::inference);

/// The types of numbers by name.
inline constexpr std::array<std::pair<const char*, c10::ScalarType>, 3> kPrecisionNames = {
    {{"fp32", c10::kFloat}, {"fp16", c10::kHalf}, {"bf16", c10::kBFloat16}}};

/// "fp32", "bf16", "fp16".
std::string precision_name(c10::ScalarType type);

}  // namespace ringlet::nn
