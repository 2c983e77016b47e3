#include "ringlet/train/adamw.h"

#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

namespace ringlet::train {

AdamW::AdamW(std::vector<Trainable> parameters, AdamWOptions options)
    : parameters_(std::move(parameters)), options_(options) {
  for (const Trainable& parameter : parameters_) {
    exp_avg_.push_back(at::zeros_like(parameter.value).detach());
    exp_avg_sq_.push_back(at::zeros_like(parameter.value).detach());
  }
}

void AdamW::step(double learning_rate) {
  at::NoGradGuard no_grad;
  struct Group {
    std::vector<at::Tensor> values, gradients, averages, squares, counts;
  };
  std::map<double, Group> groups;  // by factor on the rate
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Trainable& parameter = parameters_[i];
    if (!parameter.value.grad().defined()) continue;
    const double decay = learning_rate * parameter.rate_factor * options_.weight_decay;
    if (parameter.anchor.defined())
      parameter.value.lerp_(parameter.anchor, decay);
    else if (decay != 0.0)
      parameter.value.mul_(1.0 - decay);
    Group& group = groups[parameter.rate_factor];
    group.values.push_back(parameter.value);
    group.gradients.push_back(parameter.value.grad());
    group.averages.push_back(exp_avg_[i]);
    group.squares.push_back(exp_avg_sq_[i]);
    group.counts.push_back(at::full({}, static_cast<double>(updates_ + 1), at::kFloat));
  }
  ++updates_;
  for (auto& [factor, group] : groups)
    at::_fused_adamw_(group.values, group.gradients, group.averages, group.squares, {},
                      group.counts, learning_rate * factor, options_.beta1, options_.beta2,
                      /*weight_decay=*/0.0, options_.epsilon, /*amsgrad=*/false,
                      /*maximize=*/false);
}

std::map<std::string, at::Tensor> AdamW::state() const {
  std::map<std::string, at::Tensor> tensors;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    tensors["exp_avg." + parameters_[i].name] = exp_avg_[i];
    tensors["exp_avg_sq." + parameters_[i].name] = exp_avg_sq_[i];
  }
  return tensors;
}

}  // namespace ringlet::train
