#include "ringlet/train/fused_adamw.h"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>

namespace ringlet::train {

void FusedAdamW::operator()(const std::vector<at::Tensor>& values,
                            const std::vector<at::Tensor>& gradients,
                            const std::vector<at::Tensor>& exp_avg,
                            const std::vector<at::Tensor>& exp_avg_sq, double learning_rate,
                            const AdamNumbers& numbers, std::int64_t updates) {
  // A device's kernel reads the number of the update there. One tensor per device serves all
  // parameters, since the kernel does not change it.
  const at::Device device = values.front().device();
  at::Tensor& count = counts_[device.str()];
  if (!count.defined()) count = at::empty({}, at::TensorOptions(at::kFloat).device(device));
  count.fill_(static_cast<double>(updates));
  at::_fused_adamw_(values, gradients, exp_avg, exp_avg_sq, {},
                    std::vector<at::Tensor>(values.size(), count), learning_rate, numbers.beta1,
                    numbers.beta2, /*weight_decay=*/0.0, numbers.epsilon, /*amsgrad=*/false,
                    /*maximize=*/false);
}

}  // namespace ringlet::train
