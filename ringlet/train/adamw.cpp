#include <map>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>

#include "ringlet/train/optimizers.h"

namespace ringlet::train {
namespace {

class AdamW final : public Optimizer {
 public:
  AdamW(std::vector<Trainable> parameters, const AdamWOptions& options)
      : Optimizer(std::move(parameters), options.weight_decay),
        options_(options),
        exp_avg_(zeros()),
        exp_avg_sq_(zeros()) {}

  std::map<std::string, at::Tensor> state() const override {
    std::map<std::string, at::Tensor> state;
    add_slot(state, "exp_avg", exp_avg_);
    add_slot(state, "exp_avg_sq", exp_avg_sq_);
    return state;
  }

 private:
  void update(const Group& group) override {
    // The decay of the fused kernel knows no start: Optimizer::step has done it.
    at::_fused_adamw_(group.values, group.gradients, group.of(exp_avg_), group.of(exp_avg_sq_), {},
                      std::vector<at::Tensor>(group.values.size(), count(group)),
                      group.learning_rate, options_.beta1, options_.beta2, /*weight_decay=*/0.0,
                      options_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
  }

  /// The number of this update where the parameters are: a device's kernel reads it there. One
  /// tensor per device serves all parameters, since the kernel does not change it.
  at::Tensor count(const Group& group) {
    const at::Device device = group.values.front().device();
    at::Tensor& count = counts_[device.str()];
    if (!count.defined()) count = at::empty({}, at::TensorOptions(at::kFloat).device(device));
    return count.fill_(static_cast<double>(updates()));
  }

  AdamWOptions options_;
  std::vector<at::Tensor> exp_avg_, exp_avg_sq_;
  std::map<std::string, at::Tensor> counts_;  ///< by device
};

}  // namespace

OptimizerSpec adamw(const AdamWOptions& options) {
  return {"adamw",
          {{"betas", {options.beta1, options.beta2}}, {"weight decay", options.weight_decay}},
          2 * sizeof(float),
          [options](std::vector<Trainable> parameters) {
            return std::make_unique<AdamW>(std::move(parameters), options);
          }};
}

}  // namespace ringlet::train
