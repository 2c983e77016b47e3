#include "ringlet/nn/device.h"

#include <chrono>
#include <filesystem>
#include <vector>

#include <ATen/Context.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <dlfcn.h>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::nn {
namespace {

CudaState probe_cuda() {
  if (!std::filesystem::exists("/dev/nvidiactl") && !std::filesystem::exists("/dev/dxg"))
    return {0, "no NVIDIA driver is loaded"};
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* problem = dlerror();
    return {0, std::string("libtorch_cuda cannot be loaded: ") +
                   (problem != nullptr ? problem : "unknown reason")};
  }
  try {
    if (!at::hasCUDA()) return {0, "LibTorch finds no CUDA device"};
    const auto devices = at::detail::getCUDAHooks().deviceCount();
    return {static_cast<int>(devices), devices > 0 ? "" : "LibTorch finds no CUDA device"};
  } catch (const std::exception& problem) {
    return {0, std::string("CUDA does not start: ") + problem.what()};
  }
}

}  // namespace

CudaState cuda_state() {
  static const CudaState state = probe_cuda();
  return state;
}

c10::Device select_device(const std::string& name) {
  if (name == "cpu") return c10::kCPU;
  const bool automatic = name == "auto";
  if (!automatic && name != "cuda" && !name.starts_with("cuda:"))
    throw Error(ErrorCode::invalid_argument, Field("device"), "\"" + name + "\" is not a device",
                "use auto, cpu or cuda");
  const CudaState state = cuda_state();
  if (state.devices == 0) {
    if (automatic) return c10::kCPU;
    throw Error(ErrorCode::unsupported, Field("device"), "CUDA cannot be used: " + state.reason,
                "install the driver and run scripts/bootstrap.sh --cuda, or use `device=cpu`");
  }
  if (automatic || name == "cuda") return c10::Device(c10::kCUDA, 0);
  const std::string index = name.substr(5);
  if (index.empty() || index.find_first_not_of("0123456789") != std::string::npos ||
      index.size() > 3 || std::stoi(index) >= state.devices)
    throw Error(
        ErrorCode::invalid_argument, Field("device"),
        "there is no device \"" + name + "\"; this machine has " + std::to_string(state.devices));
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(std::stoi(index)));
}

at::Tensor to_device(const at::Tensor& tensor, c10::Device device) {
  if (!device.is_cuda() || !tensor.is_cpu()) return tensor.to(device);
  return tensor.pin_memory().to(device, /*non_blocking=*/true);
}

double measure_matmul_speed(c10::ScalarType type) {
  using Clock = std::chrono::steady_clock;
  constexpr std::int64_t kSize = 384;
  constexpr auto kTime = std::chrono::milliseconds(50);
  const at::Tensor a = at::ones({kSize, kSize}, type);
  at::matmul(a, a);  // threads and code paths start here
  const auto begin = Clock::now();
  std::int64_t products = 0;
  do {
    at::matmul(a, a);
    ++products;
  } while (Clock::now() - begin < kTime);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const double operations = 2.0 * kSize * kSize * kSize * static_cast<double>(products);
  return operations / seconds / 1e9;
}

c10::ScalarType select_precision(const std::string& name, c10::Device device) {
  if (name.empty()) return select_precision(device.is_cpu() ? "fp32" : "auto", device);
  if (name == "fp32") return c10::kFloat;
  if (name == "bf16") return c10::kBFloat16;
  if (name == "fp16") return c10::kHalf;
  if (name != "auto") {
    const std::vector<std::string> known = {"auto", "fp32", "bf16", "fp16"};
    throw Error(ErrorCode::invalid_argument, Field("precision"),
                "\"" + name + "\" is not a precision", "use " + join(known));
  }
  if (device.is_cuda()) return c10::kHalf;
  constexpr double kClearlyFaster = 1.3;
  const double full = measure_matmul_speed(c10::kFloat);
  return measure_matmul_speed(c10::kBFloat16) > kClearlyFaster * full ? c10::kBFloat16
                                                                      : c10::kFloat;
}

std::string precision_name(c10::ScalarType type) {
  if (type == c10::kBFloat16) return "bf16";
  return type == c10::kHalf ? "fp16" : "fp32";
}

}  // namespace ringlet::nn
