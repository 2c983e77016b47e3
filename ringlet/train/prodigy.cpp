#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_addcdiv.h>
#include <ATen/ops/_foreach_addcmul.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_sqrt.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/accumulate.h>

#include "ringlet/train/optimizers.h"

namespace ringlet::train {
namespace {

class Prodigy final : public Optimizer {
 public:
  Prodigy(std::vector<Trainable> all, const ProdigyOptions& options)
      : Optimizer(std::move(all), options.weight_decay),
        options_(options),
        exp_avg_(zeros()),
        exp_avg_sq_(zeros()),
        estimate_(at::tensor({options.d0, options.d0, 0.0}, at::kDouble)) {
    for (const at::Tensor& start : copies()) {
      first_.push_back(sliced(start).clone());
      s_.push_back(at::zeros_like(first_.back()));
    }
  }

  std::map<std::string, at::Tensor> state() const override {
    std::map<std::string, at::Tensor> state = {{"prodigy", estimate_}};
    add_slot(state, "exp_avg", exp_avg_);
    add_slot(state, "exp_avg_sq", exp_avg_sq_);
    add_slot(state, "s", s_);
    add_slot(state, "p0", first_);
    return state;
  }

 private:
  struct Estimate {
    double &d, &largest, &numerator;
  };
  Estimate estimate() const {
    auto* const numbers = estimate_.data_ptr<double>();
    return {numbers[0], numbers[1], numbers[2]};
  }

  at::Tensor sliced(const at::Tensor& tensor) const {
    return tensor.reshape({-1}).slice(0, 0, std::nullopt, options_.slice_p);
  }

  double beta3() const { return options_.beta3.value_or(std::sqrt(options_.beta2)); }

  double bias_correction() const {
    if (!options_.use_bias_correction) return 1.0;
    const auto number = static_cast<double>(updates());
    return std::sqrt(1.0 - std::pow(options_.beta2, number)) /
           (1.0 - std::pow(options_.beta1, number));
  }

  /// The averages, and the distance from the start that follows from all parameters together. The
  /// step is that of the distance before, epsilon's share that of the new one.
  void prepare(double learning_rate, std::vector<Group>& groups) override {
    const auto [d, largest, numerator] = estimate();
    const double rate = d * learning_rate * bias_correction(), before = d;
    if (learning_rate > 0.0) {
      std::vector<at::Tensor> dots, sums;
      for (const Group& group : groups)
        if (group.learning_rate > 0.0) observe(group, rate, dots, sums);
      learn(rate, dots, sums);
    }
    for (Group& group : groups) group.learning_rate *= before * bias_correction();
  }

  void observe(const Group& group, double rate, std::vector<at::Tensor>& dots,
               std::vector<at::Tensor>& sums) const {
    const double d = estimate().d;
    const std::vector<at::Tensor> averages = group.of(exp_avg_), squares = group.of(exp_avg_sq_);
    std::vector<at::Tensor> gradients = group.gradients;
    for (at::Tensor& gradient : gradients) gradient = gradient.to(averages.front().scalar_type());
    at::_foreach_mul_(averages, options_.beta1);
    at::_foreach_add_(averages, gradients, d * (1.0 - options_.beta1));
    at::_foreach_mul_(squares, options_.beta2);
    at::_foreach_addcmul_(squares, gradients, gradients, d * d * (1.0 - options_.beta2));
    const double step = d / options_.d0 * (options_.safeguard_warmup ? d : rate);
    for (std::size_t i = 0; i < group.values.size(); ++i) {
      const std::size_t number = group.numbers[i];
      const auto type = first_[number].scalar_type();
      const at::Tensor gradient = sliced(gradients[i]);
      dots.push_back(at::dot(gradient, first_[number] - sliced(group.values[i].detach()).to(type))
                         .to(at::kDouble));
      s_[number].mul_(beta3()).add_(gradient, step);
      sums.push_back(s_[number].abs().sum().to(at::kDouble));
    }
  }

  /// The host waits for the device once.
  void learn(double rate, const std::vector<at::Tensor>& dots,
             const std::vector<at::Tensor>& sums) const {
    if (dots.empty()) return;
    const at::Device device = dots.front().device();
    const auto total = [&](const std::vector<at::Tensor>& numbers) {
      std::vector<at::Tensor> together;
      for (const at::Tensor& number : numbers) together.push_back(number.to(device));
      return at::stack(together).sum();
    };
    const at::Tensor read = at::stack({total(dots), total(sums)}).cpu();
    const double dot = read.const_data_ptr<double>()[0], sum = read.const_data_ptr<double>()[1];
    if (sum == 0.0) return;  // no gradient so far
    const auto [d, largest, numerator] = estimate();
    numerator = numerator * beta3() + d / options_.d0 * rate * dot;
    const double seen = options_.d_coef * numerator / sum;
    if (d == options_.d0) d = std::max(d, seen);
    largest = std::max(largest, seen);
    d = std::min(largest,
                 d * options_.growth_rate.value_or(std::numeric_limits<double>::infinity()));
  }

  void update(const Group& group) override {
    const std::vector<at::Tensor> root = at::_foreach_sqrt(group.of(exp_avg_sq_));
    at::_foreach_add_(root, estimate().d * options_.epsilon);
    at::_foreach_addcdiv_(group.values, group.of(exp_avg_), root, -group.learning_rate);
  }

  ProdigyOptions options_;
  std::vector<at::Tensor> exp_avg_, exp_avg_sq_, s_, first_;
  at::Tensor estimate_;  ///< d, the largest one seen, the numerator; on the CPU
};

}  // namespace

void describe(OptionList& list, ProdigyOptions& o) {
  list.add("d0", o.d0, "First estimate of the distance")
      .within(ringlet::Range::above(0))
      .repeated();
  list.add("d_coef", o.d_coef, "Factor on the estimate")
      .within(ringlet::Range::above(0))
      .repeated();
  list.add("beta3", o.beta3, "Average of the estimate")
      .within(ringlet::Range::share())
      .or_else("the root of the second beta")
      .repeated();
  list.add("growth_rate", o.growth_rate, "Largest growth of the estimate in a step")
      .within(ringlet::Range::at_least(1))
      .or_else("no limit")
      .repeated();
  list.add("use_bias_correction", o.use_bias_correction, "Adam's bias correction").repeated();
  list.add("safeguard_warmup", o.safeguard_warmup, "A warm-up does not slow the estimate")
      .repeated();
  list.add("slice_p", o.slice_p, "The estimate looks at every n-th number")
      .within(ringlet::Range::at_least(1))
      .repeated();
  list.add("eps", o.epsilon, "Added to the root of the average square")
      .within(ringlet::Range::above(0))
      .repeated();
}

OptimizerSpec prodigy(const ProdigyOptions& given) {
  ProdigyOptions options = given;
  OptionList list;
  describe(list, options);
  Json settings = list.settings();
  settings["betas"] = {options.beta1, options.beta2};
  settings["weight decay"] = options.weight_decay;
  const std::int64_t every = options.slice_p;
  return {"prodigy", settings,
          [every](at::IntArrayRef sizes) {
            const auto count = static_cast<std::size_t>(c10::multiply_integers(sizes));
            const auto step = static_cast<std::size_t>(every);
            return sizeof(float) * (2 * count + 2 * ((count + step - 1) / step));
          },
          [options](std::vector<Trainable> parameters) {
            return std::make_unique<Prodigy>(std::move(parameters), options);
          },
          /*usual_rate=*/1.0};
}

}  // namespace ringlet::train
