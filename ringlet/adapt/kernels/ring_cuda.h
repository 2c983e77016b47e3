// The ring kernel of CUDA devices, which is there where ringlet was built with RINGLET_CUDA.
#pragma once

#include "ringlet/adapt/kernels/ring_kernel.h"

namespace ringlet::adapt {

/// Null in a build without RINGLET_CUDA.
const RingKernel* cuda_ring_kernel();

}  // namespace ringlet::adapt
