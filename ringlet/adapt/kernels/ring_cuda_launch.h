// What nvcc compiles of the ring kernel (ring_cuda.cu), as the rest of the library calls it.
#pragma once

#include <cstdint>

#include "ringlet/adapt/kernels/ring_workers.h"

namespace ringlet::adapt {

/// What of a device decides how tiles are divided; zeros where the driver does not say.
struct RingDevice {
  std::int64_t memory = 0;  ///< numbers that a block can share
  std::int64_t processors = 0;
};
RingDevice ring_device(int index);

/// y = T x with `groups` blocks on a CUDA stream; all pointers are the current device's. An error
/// of the driver in words, or null.
const char* launch_ring_forward(const ring_workers::Operands& operands, std::int64_t groups,
                                void* stream);

/// dx to operands.y, and gradients of the cores; operands.sums has room for every group.
const char* launch_ring_backward(const ring_workers::Operands& operands, std::int64_t groups,
                                 float* const (&dcores)[3], void* stream);

}  // namespace ringlet::adapt
