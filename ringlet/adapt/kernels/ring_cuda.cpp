#include "ringlet/adapt/kernels/ring_cuda.h"

#if defined(RINGLET_CUDA)

#include <algorithm>
#include <string>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "ringlet/adapt/kernels/ring_cuda_launch.h"
#include "ringlet/core/error.h"

namespace ringlet::adapt {
namespace {

/// A call, divided for its device.
struct Call {
  ring_workers::Operands operands;
  std::int64_t groups;
  std::vector<at::Tensor> cores;  ///< as the operands' pointers have them
};

Call call(const at::Tensor& rows, const std::vector<at::Tensor>& cores, bool transposed,
          bool backward) {
  constexpr std::int64_t kGroupsOfAProcessor = 4;
  const RingDevice device = ring_device(rows.get_device());
  Call made = {{}, 0, {}};
  ring_workers::Operands& operands = made.operands;
  operands.ring = ring_workers::fitted(chain_of(cores), device.memory, backward);
  operands.transposed = transposed;
  operands.rows = rows.size(0);
  operands.width = rows.size(1);
  for (std::size_t d = 0; d < cores.size(); ++d)
    operands.cores[d] = made.cores.emplace_back(cores[d].contiguous()).const_data_ptr<float>();
  const std::int64_t lanes = std::max<std::int64_t>(1, operands.ring.lanes);
  made.groups =
      std::clamp<std::int64_t>((operands.rows + lanes - 1) / lanes, 1,
                               std::max<std::int64_t>(1, kGroupsOfAProcessor * device.processors));
  return made;
}

void* stream_of(const at::Tensor& tensor) {
  return c10::impl::VirtualGuardImpl(tensor.device().type())
      .getStream(tensor.device())
      .native_handle();
}

void check(const char* error) {
  if (error != nullptr)
    throw Error(ErrorCode::internal, "ring kernel", std::string("the CUDA driver says: ") + error);
}

class CudaRingKernel final : public RingKernel {
 public:
  bool takes(const std::vector<at::Tensor>& cores) const override {
    return call(cores.front().flatten(1), cores, false, true).operands.ring.lanes > 0;
  }

  at::Tensor product(const at::Tensor& x, const std::vector<at::Tensor>& cores,
                     bool transposed) const override {
    const c10::DeviceGuard guard(x.device());
    at::Tensor y = at::empty_like(x);
    Call made = call(x, cores, transposed, false);
    made.operands.x = x.const_data_ptr<float>();
    made.operands.y = y.data_ptr<float>();
    if (x.numel() > 0) check(launch_ring_forward(made.operands, made.groups, stream_of(x)));
    return y;
  }

  Gradients gradients(const at::Tensor& x, const at::Tensor& dy,
                      const std::vector<at::Tensor>& cores, bool transposed, bool of_x,
                      bool of_cores) const override {
    const c10::DeviceGuard guard(dy.device());
    Call made = call(dy, cores, transposed, true);
    Gradients found;
    made.operands.dy = dy.const_data_ptr<float>();
    if (of_x) {
      found.dx = at::empty_like(dy);
      made.operands.y = found.dx.data_ptr<float>();
    }
    at::Tensor sums;
    float* dcores[3] = {};
    if (of_cores) {
      sums = at::empty({made.groups, made.operands.ring.parameters()}, dy.options());
      made.operands.x = x.const_data_ptr<float>();
      made.operands.sums = sums.data_ptr<float>();
      for (std::size_t d = 0; d < cores.size(); ++d)
        dcores[d] =
            found.dcores.emplace_back(at::empty(cores[d].sizes(), dy.options())).data_ptr<float>();
    }
    check(launch_ring_backward(made.operands, made.groups, dcores, stream_of(dy)));
    return found;
  }
};

}  // namespace

const RingKernel* cuda_ring_kernel() {
  static const CudaRingKernel kernel;
  return &kernel;
}

}  // namespace ringlet::adapt

#else

namespace ringlet::adapt {
const RingKernel* cuda_ring_kernel() { return nullptr; }
}  // namespace ringlet::adapt

#endif
