#include "ringlet/train/optimizer.h"

#include <algorithm>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/accumulate.h>

#include "ringlet/core/random.h"
#include "ringlet/train/stochastic_rounding.h"

namespace ringlet::train {
namespace {

at::ScalarType state_type(const at::Tensor& value) {
  return value.scalar_type() == at::kBFloat16 ? at::kFloat : value.scalar_type();
}

}  // namespace

Optimizer::Optimizer(std::vector<Trainable> parameters, double weight_decay)
    : parameters_(std::move(parameters)), weight_decay_(weight_decay) {}

std::vector<at::Tensor> Optimizer::Group::of(const std::vector<at::Tensor>& slot) const {
  std::vector<at::Tensor> own;
  for (const std::size_t number : numbers) own.push_back(slot[number]);
  return own;
}

std::vector<at::Tensor> Optimizer::zeros() const {
  std::vector<at::Tensor> slot;
  for (const Trainable& parameter : parameters_)
    slot.push_back(at::zeros_like(parameter.value, state_type(parameter.value)).detach());
  return slot;
}

std::vector<at::Tensor> Optimizer::copies() const {
  std::vector<at::Tensor> slot;
  for (const Trainable& parameter : parameters_)
    slot.push_back(parameter.value.detach().to(state_type(parameter.value), /*non_blocking=*/false,
                                               /*copy=*/true));
  return slot;
}

at::Tensor Optimizer::from_start(std::size_t number) const {
  const Trainable& parameter = parameters_[number];
  const at::Tensor value = parameter.value.detach();
  return parameter.start.defined() ? value - parameter.start : value;
}

void Optimizer::prepare(double, std::vector<Group>&) {}

void Optimizer::add_slot(std::map<std::string, at::Tensor>& state, const std::string& name,
                         const std::vector<at::Tensor>& slot) const {
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    state[name + "." + parameters_[i].name] = slot[i];
}

std::vector<Optimizer::Group> Optimizer::groups(double learning_rate) const {
  std::vector<Group> groups;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& value = parameters_[i].value;
    if (!value.grad().defined()) continue;
    const double rate = learning_rate * parameters_[i].rate_factor;
    auto group = std::ranges::find_if(groups, [&](const Group& other) {
      const at::Tensor& first = other.values.front();
      return other.learning_rate == rate && first.device() == value.device() &&
             first.scalar_type() == value.scalar_type();
    });
    if (group == groups.end()) group = groups.insert(groups.end(), Group{rate, {}, {}, {}});
    group->numbers.push_back(i);
    group->values.push_back(value);
    group->gradients.push_back(value.grad());
  }
  return groups;
}

void Optimizer::decay(const Group& group) const {
  const double share = group.learning_rate * weight_decay_;
  if (share == 0.0) return;
  std::vector<at::Tensor> to_zero, to_start, starts;
  for (std::size_t i = 0; i < group.values.size(); ++i) {
    const at::Tensor& start = parameters_[group.numbers[i]].start;
    (start.defined() ? to_start : to_zero).push_back(group.values[i]);
    if (start.defined()) starts.push_back(start);
  }
  if (!to_zero.empty()) at::_foreach_mul_(to_zero, 1.0 - share);
  if (!to_start.empty()) at::_foreach_lerp_(to_start, starts, share);
}

void Optimizer::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  ++updates_;
  std::vector<Group> all = groups(learning_rate);
  prepare(learning_rate, all);
  for (const Group& group : all) {
    if (group.values.front().scalar_type() == at::kBFloat16) {
      update_rounded(group);
      continue;
    }
    decay(group);
    update(group);
  }
}

void Optimizer::update_rounded(const Group& group) {
  for (std::size_t i = 0; i < group.values.size(); ++i) {
    const std::size_t number = group.numbers[i];
    const Group one = {group.learning_rate,
                       {number},
                       {group.values[i].detach().to(at::kFloat)},
                       {group.gradients[i].to(at::kFloat)}};
    decay(one);
    update(one);
    RandomStream keys = Random(0).stream("rounding of " + parameters_[number].name,
                                         static_cast<std::uint64_t>(updates_));
    round_stochastically(group.values[i].detach(), one.values.front(), keys.next_u64());
  }
}

std::function<std::size_t(at::IntArrayRef)> floats_per_number(double count) {
  return [count](at::IntArrayRef sizes) {
    return static_cast<std::size_t>(count * static_cast<double>(c10::multiply_integers(sizes))) *
           sizeof(float);
  };
}

}  // namespace ringlet::train
