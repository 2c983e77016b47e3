#include "ringlet/adapt/kernels/ring_kernel.h"

#include <array>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ringlet/adapt/kernels/ring_cuda.h"

namespace ringlet::adapt {
namespace {

struct KernelRow {
  c10::DeviceType device;
  at::ScalarType type;
  const RingKernel* (*kernel)();  ///< null where this build lacks it
};

constexpr std::array kKernelTable = {
    KernelRow{c10::DeviceType::CPU, at::kFloat, [] { return &cpu_ring_kernel(); }},
    KernelRow{c10::DeviceType::CUDA, at::kFloat, cuda_ring_kernel},
};

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct FusedRing : torch::autograd::Function<FusedRing> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& core_0,
                            const at::Tensor& core_1, const at::Tensor& core_2,
                            const RingKernel* kernel, bool transposed) {
    const bool learns = core_0.requires_grad() || core_1.requires_grad() || core_2.requires_grad();
    context->save_for_backward({learns ? x : at::Tensor(), core_0, core_1, core_2});
    context->saved_data["transposed"] = transposed;
    return kernel->product(x, {core_0, core_1, core_2}, transposed);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::NoGradGuard no_grad;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor dy = gradients.front().contiguous();
    const RingKernel::Gradients found =
        ring_kernel_for(dy.device(), dy.scalar_type())
            ->gradients(saved[0], dy, {saved[1], saved[2], saved[3]},
                        context->saved_data["transposed"].toBool(), context->needs_input_grad(0),
                        saved[0].defined());
    variable_list all = {found.dx};
    for (std::size_t d = 0; d < 3; ++d)
      all.push_back(found.dcores.empty() ? at::Tensor() : found.dcores[d]);
    all.resize(6);
    return all;
  }
};

}  // namespace

const RingKernel* ring_kernel_for(c10::Device device, at::ScalarType type) {
  for (const KernelRow& row : kKernelTable)
    if (row.device == device.type() && row.type == type) return row.kernel();
  return nullptr;
}

at::Tensor fused_ring(const RingKernel& kernel, const at::Tensor& x,
                      const std::vector<at::Tensor>& cores, bool transposed) {
  const at::Tensor rows = x.reshape({-1, x.size(-1)}).contiguous();
  return (c10::GradMode::is_enabled()
              ? FusedRing::apply(rows, cores[0], cores[1], cores[2], &kernel, transposed)
              : kernel.product(rows, cores, transposed))
      .view(x.sizes());
}

RingChain chain_of(const std::vector<at::Tensor>& cores) {
  return {cores[0].size(0), cores[1].size(0), cores[2].size(0), cores[0].size(2), 1, 1};
}

}  // namespace ringlet::adapt
