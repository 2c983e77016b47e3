// T x of a tensor-ring matrix in one kernel from cores to output, forward and backward: a table by
// device and type, as nn/kernels.h is for products.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/kernels/ring_chain.h"

namespace ringlet::adapt {

class RingKernel {
 public:
  virtual ~RingKernel() = default;

  /// Whether it has room for a ring of these cores.
  virtual bool takes(const std::vector<at::Tensor>& cores) const {
    return static_cast<void>(cores), true;
  }

  /// T x, or T^t x, for rows x [n, width] of its device and type, contiguous; cores [f, f, R, R] of
  /// three modes whose product is at least `width` (numbers beyond it are zeros, and are cut off
  /// again). No gradient is recorded.
  virtual at::Tensor product(const at::Tensor& x, const std::vector<at::Tensor>& cores,
                             bool transposed) const = 0;

  struct Gradients {
    at::Tensor dx;                   ///< undefined where it was not asked for
    std::vector<at::Tensor> dcores;  ///< likewise empty
  };

  /// Gradients of product() for dy [n, width]. The sums over n are in an order that depends on n
  /// and the sizes alone.
  virtual Gradients gradients(const at::Tensor& x, const at::Tensor& dy,
                              const std::vector<at::Tensor>& cores, bool transposed, bool of_x,
                              bool of_cores) const = 0;
};

/// The kernel for tensors on this device and of this type; null where there is none, and the plain
/// form (ring.h) is to be taken.
const RingKernel* ring_kernel_for(c10::Device device, at::ScalarType type);

/// The processor's, fp32.
const RingKernel& cpu_ring_kernel();

/// T x, or T^t x, along the last axis of x [..., width], with its derivatives.
at::Tensor fused_ring(const RingKernel& kernel, const at::Tensor& x,
                      const std::vector<at::Tensor>& cores, bool transposed);

/// Sizes of the chain of three cores, its tiles left open.
RingChain chain_of(const std::vector<at::Tensor>& cores);

}  // namespace ringlet::adapt
