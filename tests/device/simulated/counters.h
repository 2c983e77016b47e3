// What the simulated device counts.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "tests/device/simulated_device.h"

namespace ringlet::device {

enum class Direction { host_to_device, device_to_host };

/// One operator of LibTorch, as the device sees it.
struct Operator {
  std::string name;  ///< "add.Tensor"
  bool has_kernel;   ///< on CUDA
  bool strict;       ///< CUDA asks for all tensors on one device, without exceptions
  bool view;         ///< changes no numbers: no kernel starts
  bool waits;        ///< the host needs its result
  bool takes_host_indices;
  std::atomic<std::int64_t> launches = 0;
};

void count_launch(Operator& op, bool with_doubles);
void count_wait(std::string_view what);
void count_copy(Direction direction, std::int64_t bytes, bool pinned);
void count_allocation();

Counters read_counters();
void reset_counters();

/// The operators that ran so far; entries live as long as the program.
Operator& operator_named(const void* key, const std::string& name, const std::string& overload);
std::int64_t launches_with_prefix(std::string_view prefix);
std::string counters_as_json();

}  // namespace ringlet::device
