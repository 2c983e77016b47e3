#include <map>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>

#include "ringlet/core/error.h"
#include "ringlet/train/optimizers.h"

namespace ringlet::train {
namespace {

class Sgd final : public Optimizer {
 public:
  Sgd(std::vector<Trainable> parameters, const SgdOptions& options)
      : Optimizer(std::move(parameters), /*weight_decay=*/0.0), options_(options) {
    if (options.momentum > 0.0) momentum_ = zeros();
  }

  std::map<std::string, at::Tensor> state() const override {
    std::map<std::string, at::Tensor> state;
    if (!momentum_.empty()) add_slot(state, "momentum_buffer", momentum_);
    return state;
  }

 private:
  void update(const Group& group) override {
    std::vector<at::Tensor> direction = group.gradients;
    if (options_.weight_decay > 0.0) {
      std::vector<at::Tensor> pulls;
      for (const std::size_t number : group.numbers) pulls.push_back(from_start(number));
      direction = at::_foreach_add(direction, pulls, options_.weight_decay);
    }
    if (!momentum_.empty()) {
      const std::vector<at::Tensor> momentum = group.of(momentum_);
      at::_foreach_mul_(momentum, options_.momentum);
      at::_foreach_add_(momentum, direction);
      direction =
          options_.nesterov ? at::_foreach_add(direction, momentum, options_.momentum) : momentum;
    }
    at::_foreach_add_(group.values, direction, -group.learning_rate);
  }

  SgdOptions options_;
  std::vector<at::Tensor> momentum_;
};

}  // namespace

void describe(OptionList& list, SgdOptions& o) {
  list.add("momentum", o.momentum, "Share of the direction before").within(ringlet::Range::share());
  list.add("nesterov", o.nesterov, "Look ahead along the momentum");
}

OptimizerSpec sgd(const SgdOptions& options) {
  if (options.nesterov && options.momentum == 0.0)
    throw Error(ErrorCode::invalid_argument, Field("optimizer_options"),
                "nesterov needs a momentum above 0");
  return {"sgd",
          {{"momentum", options.momentum},
           {"nesterov", options.nesterov},
           {"weight decay", options.weight_decay}},
          floats_per_number(options.momentum > 0.0 ? 1 : 0),
          [options](std::vector<Trainable> parameters) {
            return std::make_unique<Sgd>(std::move(parameters), options);
          }};
}

}  // namespace ringlet::train
