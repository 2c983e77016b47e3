// What the simulated CUDA device has counted. The device is a shared library that is preloaded
// under a program (README.md); without it present() is false and there is nothing to read.
#pragma once

#include <cstdint>
#include <string>

#include <dlfcn.h>

namespace ringlet::device {

/// Since the start of the program, or the last reset().
struct Counters {
  std::int64_t current_bytes = 0;  ///< of all devices, in blocks of 512 bytes
  std::int64_t peak_bytes = 0;
  std::int64_t allocations = 0;
  std::int64_t launches = 0;         ///< operators that would start kernels; views do not
  std::int64_t double_launches = 0;  ///< of them, those that take fp64, which GPUs compute slowly
  std::int64_t waits = 0;            ///< times that the host waits for the device
  std::int64_t host_to_device = 0;   ///< copies
  std::int64_t host_to_device_bytes = 0;
  std::int64_t pageable = 0;  ///< copies, of both directions, from or to memory that is not pinned
  std::int64_t device_to_host = 0;
  std::int64_t device_to_host_bytes = 0;
};

namespace detail {

template <class Function>
Function* resolve(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

}  // namespace detail

inline bool present() {
  return detail::resolve<void(Counters*)>("ringlet_simulated_device_counters") != nullptr;
}

inline Counters counters() {
  Counters all;
  detail::resolve<void(Counters*)>("ringlet_simulated_device_counters")(&all);
  return all;
}

/// Counters to zero, the peak to the bytes that are in use.
inline void reset() { detail::resolve<void()>("ringlet_simulated_device_reset")(); }

/// Launches of operators whose name.overload starts so: "mul", "_fused_adamw_.".
inline std::int64_t launches_of(const std::string& prefix) {
  return detail::resolve<std::int64_t(const char*)>("ringlet_simulated_device_launches_of")(
      prefix.c_str());
}

/// All counters as JSON, with the launches by operator.
inline std::string report() {
  return detail::resolve<const char*()>("ringlet_simulated_device_report")();
}

/// From now on memory on any other device is an error; -1 ends it.
inline void choose(int index) {
  detail::resolve<void(int)>("ringlet_simulated_device_choose")(index);
}

/// The devices' memory in bytes: more is refused as a GPU refuses it.
inline void limit_memory(std::int64_t bytes) {
  detail::resolve<void(std::int64_t)>("ringlet_simulated_device_limit_memory")(bytes);
}

/// The major number of the compute capability that the devices say they have.
inline void set_compute_capability(int major) {
  detail::resolve<void(int)>("ringlet_simulated_device_set_compute_capability")(major);
}

}  // namespace ringlet::device
