#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/train/factored_average.h"
#include "ringlet/train/optimizers.h"

namespace ringlet::train {
namespace {

class Came final : public Optimizer {
 public:
  Came(std::vector<Trainable> all, const CameOptions& options)
      : Optimizer(std::move(all), options.weight_decay),
        options_(options),
        squares_(parameters()),
        instability_(parameters(), /*vectors=*/false),
        exp_avg_(zeros()) {}

  std::map<std::string, at::Tensor> state() const override {
    std::map<std::string, at::Tensor> state;
    squares_.add_to(state, "exp_avg_sq", parameters());
    instability_.add_to(state, "exp_avg_res", parameters());
    add_slot(state, "exp_avg", exp_avg_);
    return state;
  }

 private:
  void update(const Group& group) override {
    for (std::size_t i = 0; i < group.values.size(); ++i) {
      const std::size_t number = group.numbers[i];
      const at::Tensor& gradient = group.gradients[i];
      const at::Tensor step =
          squares_.update(number, gradient.square().add_(options_.epsilon1), options_.beta2);
      step.mul_(gradient);
      step.div_((root_mean_square(step) / options_.clip_threshold).clamp_min_(1.0));
      const at::Tensor& average = exp_avg_[number];
      average.mul_(options_.beta1).add_(step, 1.0 - options_.beta1);
      // The less an update resembles its average, the smaller the step; matrices alone.
      const at::Tensor moved =
          instability_.keeps(number)
              ? instability_.update(number, (step - average).square_().add_(options_.epsilon2),
                                    options_.beta3) *
                    average
              : average;
      group.values[i].add_(moved, -group.learning_rate);
    }
  }

  CameOptions options_;
  FactoredAverage squares_, instability_;
  std::vector<at::Tensor> exp_avg_;
};

}  // namespace

void describe(OptionList& list, CameOptions& o) {
  list.add("beta3", o.beta3, "Average of the instability").within(Range::share()).repeated();
  list.add("eps1", o.epsilon1, "Added to squares").within(Range::above(0)).repeated();
  list.add("eps2", o.epsilon2, "Added to the instability").within(Range::above(0)).repeated();
  list.add("clip_threshold", o.clip_threshold, "Largest root mean square of an update")
      .within(Range::above(0))
      .repeated();
}

OptimizerSpec came(const CameOptions& given) {
  CameOptions options = given;
  OptionList list;
  describe(list, options);
  Json settings = list.settings();
  settings["betas"] = {options.beta1, options.beta2};
  settings["weight decay"] = options.weight_decay;
  return {"came", settings,
          [](at::IntArrayRef sizes) {
            return FactoredAverage::bytes(sizes) + FactoredAverage::bytes(sizes, false) +
                   floats_per_number(1)(sizes);
          },
          [options](std::vector<Trainable> parameters) {
            return std::make_unique<Came>(std::move(parameters), options);
          }};
}

}  // namespace ringlet::train
