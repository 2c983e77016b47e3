// Products and convolutions through oneDNN, which LibTorch carries.
//
// For fp32 at::linear calls MKL, which leaves half of the speed of processors other than Intel's
// unused; at::conv2d lays the same weight out anew in every call. The kernels here avoid both, and
// know their gradients (once, not those of gradients). docs/performance.md has the measurements.
#pragma once

#include "ringlet/nn/kernels.h"

namespace ringlet::nn {

/// The kernel set for fp32 on the CPU; null where LibTorch comes without oneDNN.
const KernelSet* onednn_kernels();

}  // namespace ringlet::nn
