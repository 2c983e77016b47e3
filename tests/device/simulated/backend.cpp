// What LibTorch asks of a device beside its operators: guard, hooks, and an answer to those who
// read the simulation's counters.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "tests/device/simulated/counters.h"
#include "tests/device/simulated/faults.h"
#include "tests/device/simulated/memory.h"

namespace ringlet::device {
namespace {

std::atomic<int> compute_capability = 8;

/// One stream per device, on which everything happens at once.
class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  static constexpr c10::DeviceType static_type = kType;

  Guard() = default;
  explicit Guard(c10::DeviceType) {}  // as the registration makes it

  c10::DeviceType type() const override { return kType; }
  c10::Device getDevice() const override { return {kType, current_device()}; }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() >= 0 && device.index() < kDevices,
                "simulated device: there is no device ", device);
    set_current_device(device.index());
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    set_current_device(device.index());
  }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }

  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return getStream(device); }
  c10::Stream getNewStream(c10::Device device, int) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override { count_wait("stream"); }
  void synchronizeDevice(const c10::DeviceIndex) const override { count_wait("device"); }

  void record(void**, const c10::Stream&, const c10::DeviceIndex,
              const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override { count_wait("event"); }
};

class Hooks final : public at::CUDAHooksInterface {
 public:
  explicit Hooks(at::CUDAHooksArgs) {}

  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool hasCUDART() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kDevices; }
  int getNumGPUs() const override { return kDevices; }
  c10::DeviceIndex current_device() const override { return device::current_device(); }
  c10::DeviceIndex getCurrentDevice() const override { return device::current_device(); }
  void setCurrentDevice(c10::DeviceIndex index) const override { set_current_device(index); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    const c10::DeviceIndex before = device::current_device();
    set_current_device(index);
    return before;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return exchangeDevice(index);
  }
  void deviceSynchronize(c10::DeviceIndex) const override { count_wait("device"); }
  c10::Allocator* getCUDADeviceAllocator() const override { return &allocator(); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator(); }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  c10::Device getDeviceFromPtr(void* data) const override {
    return {kType, static_cast<c10::DeviceIndex>(device_of(data))};
  }
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard);

void write_report() {
  const char* path = std::getenv("RINGLET_SIMULATED_REPORT");
  if (path == nullptr) return;
  if (std::FILE* file = std::fopen(path, "w"); file != nullptr) {
    std::fputs(counters_as_json().c_str(), file);
    std::fclose(file);
  }
}

/// A number from the environment, for programs that are not ours to call into.
template <class Setter>
void set_from(const char* variable, Setter setter) {
  if (const char* text = std::getenv(variable); text != nullptr) setter(std::atoll(text));
}

struct Start {
  Start() {
    c10::SetAllocator(kType, &allocator(), /*priority=*/1);
    set_from("RINGLET_SIMULATED_DEVICE", [](long long i) { choose_device(static_cast<int>(i)); });
    set_from("RINGLET_SIMULATED_MEMORY", [](long long bytes) { limit_memory_of_devices(bytes); });
    set_from("RINGLET_SIMULATED_CAPABILITY",
             [](long long major) { compute_capability = static_cast<int>(major); });
    catch_faults();
    std::atexit(&write_report);
  }
};
const Start start;

}  // namespace
}  // namespace ringlet::device

namespace at {
// LibTorch looks the hooks up by this name.
using CUDAHooks = ringlet::device::Hooks;
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

using namespace ringlet;

extern "C" {

void ringlet_simulated_device_counters(device::Counters* out) { *out = device::read_counters(); }
void ringlet_simulated_device_reset() { device::reset_counters(); }
std::int64_t ringlet_simulated_device_launches_of(const char* prefix) {
  return device::launches_with_prefix(prefix);
}
const char* ringlet_simulated_device_report() {
  thread_local std::string text;
  return (text = device::counters_as_json()).c_str();
}
void ringlet_simulated_device_choose(int index) { device::choose_device(index); }
void ringlet_simulated_device_limit_memory(std::int64_t bytes) {
  device::limit_memory_of_devices(bytes);
}
void ringlet_simulated_device_set_compute_capability(int major) {
  device::compute_capability = major;
}

/// The CUDA runtime's question, of which a program asks the compute capability.
int cudaDeviceGetAttribute(int* value, int attribute, int index) {
  constexpr int kMajor = 75, kMinor = 76, kInvalidValue = 1, kInvalidDevice = 101;
  if (index < 0 || index >= device::kDevices) return kInvalidDevice;
  if (attribute != kMajor && attribute != kMinor) return kInvalidValue;
  *value = attribute == kMajor ? device::compute_capability.load() : 0;
  return 0;
}

}  // extern "C"
