#include <map>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_sign.h>

#include "ringlet/train/optimizers.h"

namespace ringlet::train {
namespace {

class Lion final : public Optimizer {
 public:
  Lion(std::vector<Trainable> parameters, const LionOptions& options)
      : Optimizer(std::move(parameters), options.weight_decay),
        options_(options),
        exp_avg_(zeros()) {}

  std::map<std::string, at::Tensor> state() const override {
    std::map<std::string, at::Tensor> state;
    add_slot(state, "exp_avg", exp_avg_);
    return state;
  }

 private:
  void update(const Group& group) override {
    const std::vector<at::Tensor> averages = group.of(exp_avg_);
    // The direction looks further ahead than the average that is kept (beta1 < beta2).
    const std::vector<at::Tensor> direction = at::_foreach_mul(averages, options_.beta1);
    at::_foreach_add_(direction, group.gradients, 1.0 - options_.beta1);
    at::_foreach_sign_(direction);
    at::_foreach_add_(group.values, direction, -group.learning_rate);
    at::_foreach_mul_(averages, options_.beta2);
    at::_foreach_add_(averages, group.gradients, 1.0 - options_.beta2);
  }

  LionOptions options_;
  std::vector<at::Tensor> exp_avg_;
};

}  // namespace

void describe(OptionList&, LionOptions&) {}

OptimizerSpec lion(const LionOptions& options) {
  return {"lion",
          {{"betas", {options.beta1, options.beta2}}, {"weight decay", options.weight_decay}},
          floats_per_number(1),
          [options](std::vector<Trainable> parameters) {
            return std::make_unique<Lion>(std::move(parameters), options);
          }};
}

}  // namespace ringlet::train
