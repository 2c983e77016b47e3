#include "ringlet/nn/device.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include <ATen/Context.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <dlfcn.h>

#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/memory_use.h"
#include "ringlet/core/text.h"

namespace ringlet::nn {
namespace {

constexpr const char* kLibrary = "libtorch_cuda.so";

/// A function of the CUDA runtime, which libtorch_cuda brings along, or null.
template <class Function>
Function* cuda_runtime(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

/// The CUDA version that a driver of the CUDA runtime's numbering serves: 13000 is "13.0".
std::string cuda_version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

/// Why LibTorch finds no device although its CUDA library is loaded: the runtime's own reason.
CudaState no_device() {
  CudaState state{0, "LibTorch finds no CUDA device", "", true};
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES"); visible != nullptr) {
    state.reason += std::string("; CUDA_VISIBLE_DEVICES is \"") + visible + "\"";
    state.fix = "unset CUDA_VISIBLE_DEVICES, or name a GPU in it";
  }
  const auto driver_version = cuda_runtime<int(int*)>("cudaDriverGetVersion");
  const auto runtime_version = cuda_runtime<int(int*)>("cudaRuntimeGetVersion");
  int driver = 0, runtime = 0;
  if (driver_version != nullptr && runtime_version != nullptr && driver_version(&driver) == 0 &&
      runtime_version(&runtime) == 0 && driver < runtime) {
    state.reason = "the NVIDIA driver serves CUDA " + cuda_version(driver) +
                   " at most, and this LibTorch is built for CUDA " + cuda_version(runtime);
    state.fix = "update the NVIDIA driver";
  }
  return state;
}

void set_tf32(bool allow) {
  at::globalContext().setAllowTF32CuBLAS(allow);
  at::globalContext().setAllowTF32CuDNN(allow);
}

CudaState probe_cuda() {
  const bool loaded = dlopen(kLibrary, RTLD_NOW | RTLD_NOLOAD) != nullptr;
  const bool driver =
      loaded || std::filesystem::exists("/dev/nvidiactl") || std::filesystem::exists("/dev/dxg");
  if (!driver) return {0, "no NVIDIA driver is loaded", "install the NVIDIA driver", false};
  if (dlopen(kLibrary, RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* problem = dlerror();
    return {0,
            std::string("libtorch_cuda cannot be loaded: ") +
                (problem != nullptr ? problem : "unknown reason"),
            "run scripts/bootstrap.sh --cuda and build again", true};
  }
  try {
    if (!at::hasCUDA()) return no_device();
    const auto devices = at::detail::getCUDAHooks().deviceCount();
    if (devices <= 0) return no_device();
    set_tf32(false);
    return {static_cast<int>(devices), "", "", true};
  } catch (const std::exception& problem) {
    return {0, std::string("CUDA does not start: ") + problem.what(), "", true};
  }
}

/// Once: a program that asks for several devices has one machine.
void say_why_not_cuda(const CudaState& state) {
  static const bool said = [&] {
    log(state.driver ? LogLevel::warning : LogLevel::debug,
        "the CPU is used, not a GPU: " + state.reason +
            (state.fix.empty() ? "" : " (" + state.fix + ")"));
    return true;
  }();
  static_cast<void>(said);
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
    if (automatic) {
      say_why_not_cuda(state);
      return c10::kCPU;
    }
    throw Error(ErrorCode::unsupported, Field("device"), "CUDA cannot be used: " + state.reason,
                (state.fix.empty() ? "" : state.fix + ", or ") + "use `device=cpu`");
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

int compute_capability(c10::Device device) {
  constexpr int kMajor = 75;  // cudaDevAttrComputeCapabilityMajor
  if (!device.is_cuda()) return 0;
  const auto ask = cuda_runtime<int(int*, int, int)>("cudaDeviceGetAttribute");
  int major = 0;
  if (ask == nullptr || ask(&major, kMajor, std::max<int>(device.index(), 0)) != 0) return 0;
  return major;
}

std::uint64_t peak_memory(c10::Device device) {
  if (!device.is_cuda()) return peak_resident_bytes();
  const auto aggregate = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto stats =
      c10::getDeviceAllocator(c10::kCUDA)
          ->getDeviceStats(static_cast<c10::DeviceIndex>(std::max<int>(device.index(), 0)));
  return static_cast<std::uint64_t>(stats.reserved_bytes[aggregate].peak);
}

void reset_peak_memory(c10::Device device) {
  if (device.is_cuda())
    c10::getDeviceAllocator(c10::kCUDA)
        ->resetPeakStats(static_cast<c10::DeviceIndex>(std::max<int>(device.index(), 0)));
  else
    reset_peak_resident_bytes();
}

std::uint64_t free_memory(c10::Device device) {
  const auto aggregate = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto index = static_cast<c10::DeviceIndex>(std::max<int>(device.index(), 0));
  auto* const allocator = c10::getDeviceAllocator(c10::kCUDA);
  const auto stats = allocator->getDeviceStats(index);
  const std::int64_t kept =
      stats.reserved_bytes[aggregate].current - stats.allocated_bytes[aggregate].current;
  return allocator->getMemoryInfo(index).first + static_cast<std::uint64_t>(kept);
}

void allow_tf32(bool allow) {
  cuda_state();  // whose first look at the devices turns it off
  set_tf32(allow);
}

bool tf32_allowed() { return at::globalContext().allowTF32CuBLAS(); }

void use_deterministic_algorithms(bool deterministic) {
  // cuBLAS reads this when it starts; without one of two values LibTorch refuses its products.
  constexpr const char* kVariable = "CUBLAS_WORKSPACE_CONFIG";
  constexpr const char *kLarge = ":4096:8", *kSmall = ":16:8";
  const char* set = std::getenv(kVariable);
  if (deterministic && (set == nullptr || std::string(set) != kSmall))
    setenv(kVariable, kLarge, /*overwrite=*/1);
  at::globalContext().setDeterministicAlgorithms(deterministic, /*warn_only=*/false);
  at::globalContext().setDeterministicCuDNN(deterministic);
  // Nothing here reads memory that was not written: no need to fill it.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
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

c10::ScalarType select_precision(const std::string& name, c10::Device device, Work work) {
  if (name.empty()) return select_precision(device.is_cpu() ? "fp32" : "auto", device, work);
  if (name == "fp32") return c10::kFloat;
  if (name == "bf16") return c10::kBFloat16;
  if (name == "fp16") return c10::kHalf;
  if (name != "auto") {
    const std::vector<std::string> known = {"auto", "fp32", "bf16", "fp16"};
    throw Error(ErrorCode::invalid_argument, Field("precision"),
                "\"" + name + "\" is not a precision", "use " + join(known));
  }
  constexpr int kAmpere = 8;  // the first that computes bf16 as fast as fp16
  if (device.is_cuda())
    return work == Work::training && compute_capability(device) >= kAmpere ? c10::kBFloat16
                                                                           : c10::kHalf;
  // Steps take as long in bf16, and those of small networks longer (docs/performance.md, bf16).
  if (work == Work::training) return c10::kFloat;
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
