#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/train/fused_adamw.h"
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
    adamw_(group.values, group.gradients, group.of(exp_avg_), group.of(exp_avg_sq_),
           group.learning_rate, {options_.beta1, options_.beta2, options_.epsilon}, updates());
  }

  AdamWOptions options_;
  std::vector<at::Tensor> exp_avg_, exp_avg_sq_;
  FusedAdamW adamw_;
};

}  // namespace

void describe(OptionList& list, AdamWOptions& o) {
  list.add("eps", o.epsilon, "Added to the root of the average square").within(Range::above(0));
}

OptimizerSpec adamw(const AdamWOptions& options) {
  Json settings = {{"betas", {options.beta1, options.beta2}},
                   {"weight decay", options.weight_decay}};
  // Checkpoints of earlier versions have no other value.
  if (options.epsilon != AdamWOptions().epsilon) settings["eps"] = options.epsilon;
  return {"adamw", settings, floats_per_number(2), [options](std::vector<Trainable> parameters) {
            return std::make_unique<AdamW>(std::move(parameters), options);
          }};
}

}  // namespace ringlet::train
