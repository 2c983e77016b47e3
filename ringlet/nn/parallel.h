// Loops on LibTorch's threads.
#pragma once

#include <cstdint>

#include <c10/util/FunctionRef.h>

namespace ringlet::nn {

/// Calls work(begin, end) for parts of 0 ... count, of at least `grain` numbers each, on as many of
/// LibTorch's threads as there are; on this thread alone inside another such loop. What `work`
/// throws, it throws.
///
/// at::parallel_for is a template, and a loop on one thread in code that is compiled without
/// OpenMP, as this is: LibTorch brings a runtime of its own, which another compiler's need not be.
/// This one asks an operator's loop, which is compiled into LibTorch.
void parallel_for(std::int64_t count, std::int64_t grain,
                  c10::function_ref<void(std::int64_t begin, std::int64_t end)> work);

/// The grain for numbers that take about so many operations each: less is done sooner than another
/// thread has woken up.
constexpr std::int64_t grain_of(std::int64_t operations) {
  constexpr std::int64_t kWorthAThread = 1 << 15;
  return operations >= kWorthAThread ? 1 : kWorthAThread / (operations + 1) + 1;
}

}  // namespace ringlet::nn
