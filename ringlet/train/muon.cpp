#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>

#include "ringlet/train/fused_adamw.h"
#include "ringlet/train/optimizers.h"

namespace ringlet::train {

at::Tensor nearly_orthogonal(const at::Tensor& matrix, std::int64_t iterations) {
  constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315, kTiny = 1e-7;
  const bool tall = matrix.size(0) > matrix.size(1);
  at::Tensor x = tall ? matrix.t() : matrix;
  x = x / x.norm().clamp_min_(kTiny);
  for (std::int64_t i = 0; i < iterations; ++i) {
    const at::Tensor gram = at::mm(x, x.t());
    x = at::addmm(x, at::addmm(gram, gram, gram, kB, kC), x, kA);
  }
  return tall ? x.t() : x;
}

namespace {

bool is_matrix(at::IntArrayRef sizes) { return sizes.size() == 2; }

class Muon final : public Optimizer {
 public:
  Muon(std::vector<Trainable> all, const MuonOptions& options)
      : Optimizer(std::move(all), options.weight_decay),
        options_(options),
        average_(zeros()),
        exp_avg_sq_(average_.size()) {
    for (std::size_t i = 0; i < average_.size(); ++i)
      if (!is_matrix(average_[i].sizes())) exp_avg_sq_[i] = at::zeros_like(average_[i]);
  }

  std::map<std::string, at::Tensor> state() const override {
    std::map<std::string, at::Tensor> state;
    for (std::size_t i = 0; i < average_.size(); ++i) {
      const std::string& name = parameters()[i].name;
      const bool matrix = !exp_avg_sq_[i].defined();
      state[(matrix ? "momentum_buffer." : "exp_avg.") + name] = average_[i];
      if (!matrix) state["exp_avg_sq." + name] = exp_avg_sq_[i];
    }
    return state;
  }

 private:
  void update(const Group& group) override {
    std::vector<at::Tensor> values, gradients, first, second;
    for (std::size_t i = 0; i < group.values.size(); ++i) {
      const std::size_t number = group.numbers[i];
      if (exp_avg_sq_[number].defined()) {
        values.push_back(group.values[i]);
        gradients.push_back(group.gradients[i]);
        first.push_back(average_[number]);
        second.push_back(exp_avg_sq_[number]);
      } else {
        update_matrix(group.values[i], group.gradients[i], average_[number], group.learning_rate);
      }
    }
    if (!values.empty())
      adamw_(values, gradients, first, second, group.learning_rate,
             {options_.beta1, options_.beta2, options_.epsilon}, updates());
  }

  void update_matrix(const at::Tensor& value, const at::Tensor& gradient, const at::Tensor& average,
                     double rate) const {
    average.lerp_(gradient, 1.0 - options_.momentum);
    const at::Tensor direction =
        options_.nesterov ? gradient.lerp(average, options_.momentum) : average;
    const auto rows = static_cast<double>(value.size(0)),
               columns = static_cast<double>(value.size(1));
    const double scale = options_.match_adamw ? 0.2 * std::sqrt(std::max(rows, columns))
                                              : std::sqrt(std::max(1.0, rows / columns));
    value.add_(nearly_orthogonal(direction, options_.iterations), -rate * scale);
  }

  MuonOptions options_;
  std::vector<at::Tensor> average_, exp_avg_sq_;
  FusedAdamW adamw_;
};

}  // namespace

void describe(OptionList& list, MuonOptions& o) {
  list.add("momentum", o.momentum, "Of matrices").within(Range::share()).repeated();
  list.add("nesterov", o.nesterov, "Look ahead along the momentum").repeated();
  list.add("ns_steps", o.iterations, "Newton-Schulz iterations")
      .within(Range::between(1, 99))
      .repeated();
  list.add("match_adamw", o.match_adamw, "Steps of matrices are as large as AdamW's").repeated();
  list.add("eps", o.epsilon, "AdamW's, for what is not a matrix")
      .within(Range::above(0))
      .repeated();
}

OptimizerSpec muon(const MuonOptions& given) {
  MuonOptions options = given;
  OptionList list;
  describe(list, options);
  Json settings = list.settings();
  settings["betas"] = {options.beta1, options.beta2};
  settings["weight decay"] = options.weight_decay;
  return {"muon", settings,
          [](at::IntArrayRef sizes) { return floats_per_number(is_matrix(sizes) ? 1 : 2)(sizes); },
          [options](std::vector<Trainable> parameters) {
            return std::make_unique<Muon>(std::move(parameters), options);
          }};
}

}  // namespace ringlet::train
