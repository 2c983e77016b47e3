// A run that memory is too small for says what it needs and what to change.
#pragma once

#include <cstdint>
#include <string>

#include "ringlet/core/error.h"
#include "ringlet/train/run_options.h"

namespace ringlet::train {

/// What is known of a run's memory.
struct MemoryFigures {
  std::uint64_t expected = 0;  ///< bytes at the peak, by the plan; 0 = not known
  std::uint64_t peak = 0;      ///< that were taken; 0 = not known
  std::string example_size = {};
  bool on_gpu = false;
};

/// The same Error(out_of_memory), with sizes in its message and with options that need less in its
/// hint.
Error memory_error(const Error& error, const RunOptions& options, const MemoryFigures& figures);

}  // namespace ringlet::train
