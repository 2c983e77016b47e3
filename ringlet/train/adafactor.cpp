#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/train/factored_average.h"
#include "ringlet/train/optimizer_options.h"
#include "ringlet/train/optimizers.h"

namespace ringlet::train {
namespace {

class Adafactor final : public Optimizer {
 public:
  Adafactor(std::vector<Trainable> all, const AdafactorOptions& options)
      : Optimizer(std::move(all), /*weight_decay=*/0.0), options_(options), squares_(parameters()) {
    if (options.beta1) exp_avg_ = zeros();
  }

  std::map<std::string, at::Tensor> state() const override {
    std::map<std::string, at::Tensor> state;
    squares_.add_to(state, "exp_avg_sq", parameters());
    if (!exp_avg_.empty()) add_slot(state, "exp_avg", exp_avg_);
    return state;
  }

 private:
  /// The step relative to the rate: 1 with a fixed one.
  double relative_step() const {
    if (!options_.relative_step) return 1.0;
    const auto number = static_cast<double>(updates());
    return std::min(options_.warmup_init ? 1e-6 * number : 1e-2, 1.0 / std::sqrt(number));
  }

  bool scales() const { return options_.scale_parameter.value_or(options_.relative_step); }

  void update(const Group& group) override {
    for (std::size_t i = 0; i < group.values.size(); ++i)
      update_one(group.numbers[i], group.values[i], group.gradients[i],
                 group.learning_rate * relative_step());
  }

  void update_one(std::size_t number, const at::Tensor& value, const at::Tensor& gradient,
                  double rate) {
    const double decay = 1.0 - std::pow(static_cast<double>(updates()), options_.decay_rate);
    // Numbers on the device, so that the host waits for none of them.
    const at::Tensor scale =
        scales() ? root_mean_square(value).clamp_min_(options_.epsilon2).mul_(rate) : at::Tensor();
    const auto at_rate = [&](const at::Tensor& tensor) {
      return scale.defined() ? tensor.mul_(scale) : tensor.mul_(rate);
    };
    at::Tensor step = squares_.update(number, gradient.square().add_(options_.epsilon1), decay);
    step.mul_(gradient);
    step.div_((root_mean_square(step) / options_.clip_threshold).clamp_min_(1.0));
    at_rate(step);
    if (options_.beta1)
      step = exp_avg_[number].mul_(*options_.beta1).add_(step, 1.0 - *options_.beta1);
    if (options_.weight_decay > 0.0)
      value.sub_(at_rate(from_start(number).mul(options_.weight_decay)));
    value.sub_(step);
  }

  AdafactorOptions options_;
  FactoredAverage squares_;
  std::vector<at::Tensor> exp_avg_;
};

}  // namespace

void describe(OptionList& list, AdafactorOptions& o) {
  list.add("relative_step", o.relative_step, "The step falls with the root of the updates")
      .repeated();
  list.add("scale_parameter", optional_flag(o.scale_parameter),
           "Steps are relative to a tensor's size")
      .or_else("as relative_step")
      .repeated();
  list.add("warmup_init", o.warmup_init, "A relative step begins at 1e-6").repeated();
  list.add("eps1", o.epsilon1, "Added to squares").within(Range::above(0)).repeated();
  list.add("eps2", o.epsilon2, "Least size of a tensor").within(Range::above(0)).repeated();
  list.add("clip_threshold", o.clip_threshold, "Largest root mean square of an update")
      .within(Range::above(0))
      .repeated();
  list.add("decay_rate", o.decay_rate, "Exponent of the averages' decay")
      .within(Range::between(-1, 0))
      .repeated();
  list.add("beta1", o.beta1, "Average of updates")
      .within(Range::share())
      .or_else("none")
      .repeated();
}

OptimizerSpec adafactor(const AdafactorOptions& given) {
  AdafactorOptions options = given;
  if (options.warmup_init && !options.relative_step)
    throw Error(ErrorCode::invalid_argument, Field("optimizer_options"),
                "warmup_init needs relative_step=yes");
  OptionList list;
  describe(list, options);
  Json settings = list.settings();
  settings["weight decay"] = options.weight_decay;
  const bool average = options.beta1.has_value();
  return {"adafactor", settings,
          [average](at::IntArrayRef sizes) {
            return FactoredAverage::bytes(sizes) + floats_per_number(average ? 1 : 0)(sizes);
          },
          [options](std::vector<Trainable> parameters) {
            return std::make_unique<Adafactor>(std::move(parameters), options);
          },
          options.relative_step ? 1.0 : 0.0};
}

}  // namespace ringlet::train
