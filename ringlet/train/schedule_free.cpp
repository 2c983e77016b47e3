#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_addcmul.h>
#include <ATen/ops/_foreach_div.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_sqrt.h>
#include <ATen/ops/zeros.h>

#include "ringlet/core/error.h"
#include "ringlet/train/optimizers.h"

namespace ringlet::train {
namespace {

/// The parameters are y, where gradients are taken; z is stepped, and x = y + (1 - 1 / beta1)
/// (z - y) is the average that is looked at and saved.
class ScheduleFree final : public Optimizer {
 public:
  ScheduleFree(std::vector<Trainable> parameters, const ScheduleFreeOptions& options)
      : Optimizer(std::move(parameters), /*weight_decay=*/0.0),
        options_(options),
        z_(copies()),
        exp_avg_sq_(zeros()),
        weights_(at::zeros({2}, at::kDouble)) {}

  std::map<std::string, at::Tensor> state() const override {
    std::map<std::string, at::Tensor> state = {{"schedule_free", weights_}};
    add_slot(state, "z", z_);
    add_slot(state, "exp_avg_sq", exp_avg_sq_);
    return state;
  }

  std::vector<at::Tensor> shown_values() const override {
    std::vector<at::Tensor> shown;
    for (std::size_t i = 0; i < z_.size(); ++i)
      shown.push_back(parameters()[i]
                          .value.detach()
                          .to(z_[i].scalar_type())
                          .lerp(z_[i], 1.0 - 1.0 / options_.beta1));
    return shown;
  }

 private:
  /// The share of z in the average. Factors on the rate cancel in it.
  void prepare(double learning_rate, std::vector<Group>&) override {
    auto* const numbers = weights_.data_ptr<double>();
    double &sum = numbers[0], &highest = numbers[1];
    highest = std::max(highest, learning_rate);
    const double weight = std::pow(static_cast<double>(updates()), options_.r) *
                          std::pow(highest, options_.weight_lr_power);
    sum += weight;
    share_ = sum > 0.0 ? weight / sum : 0.0;
  }

  void update(const Group& group) override {
    const std::vector<at::Tensor> squares = group.of(exp_avg_sq_), z = group.of(z_);
    at::_foreach_mul_(squares, options_.beta2);
    at::_foreach_addcmul_(squares, group.gradients, group.gradients, 1.0 - options_.beta2);
    const double correction = 1.0 - std::pow(options_.beta2, static_cast<double>(updates()));
    const std::vector<at::Tensor> root = at::_foreach_div(squares, correction);
    at::_foreach_sqrt_(root);
    at::_foreach_add_(root, options_.epsilon);
    const std::vector<at::Tensor> direction = at::_foreach_div(group.gradients, root);
    if (options_.weight_decay > 0.0) {
      std::vector<at::Tensor> pulls;
      for (const std::size_t number : group.numbers) pulls.push_back(from_start(number));
      at::_foreach_add_(direction, pulls, options_.weight_decay);
    }
    at::_foreach_lerp_(group.values, z, share_);
    at::_foreach_add_(group.values, direction,
                      group.learning_rate * (options_.beta1 * (1.0 - share_) - 1.0));
    at::_foreach_add_(z, direction, -group.learning_rate);
  }

  ScheduleFreeOptions options_;
  std::vector<at::Tensor> z_, exp_avg_sq_;
  at::Tensor weights_;  ///< their sum so far, and the highest rate, on the CPU
  double share_ = 0.0;
};

}  // namespace

void describe(OptionList& list, ScheduleFreeOptions& o) {
  list.add("eps", o.epsilon, "Added to the root of the average square")
      .within(ringlet::Range::above(0))
      .repeated();
  list.add("r", o.r, "Power of the step's number in the average")
      .within(ringlet::Range::at_least(0))
      .repeated();
  list.add("weight_lr_power", o.weight_lr_power, "Power of the highest rate in the average")
      .within(ringlet::Range::at_least(0))
      .repeated();
}

OptimizerSpec schedule_free_adamw(const ScheduleFreeOptions& given) {
  ScheduleFreeOptions options = given;
  if (!(options.beta1 > 0.0))
    throw Error(ErrorCode::invalid_argument, Field("betas"),
                "schedule-free AdamW needs a first number above 0");
  OptionList list;
  describe(list, options);
  Json settings = list.settings();
  settings["betas"] = {options.beta1, options.beta2};
  settings["weight decay"] = options.weight_decay;
  return {"schedule-free", settings, floats_per_number(2),
          [options](std::vector<Trainable> parameters) {
            return std::make_unique<ScheduleFree>(std::move(parameters), options);
          }};
}

}  // namespace ringlet::train
