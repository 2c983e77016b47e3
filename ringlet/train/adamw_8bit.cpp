#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/zeros_like.h>
#include <c10/util/accumulate.h>

#include "ringlet/train/dynamic_map.h"
#include "ringlet/train/optimizers.h"

namespace ringlet::train {
namespace {

/// Smaller tensors keep their averages in fp32, as in bitsandbytes.
constexpr std::int64_t kLeastNumbers = 4096;

class AdamW8bit final : public Optimizer {
 public:
  AdamW8bit(std::vector<Trainable> all, const AdamWOptions& options)
      : Optimizer(std::move(all), options.weight_decay), options_(options) {
    for (const Trainable& parameter : parameters()) {
      const at::Tensor value = parameter.value.detach();
      Averages averages;
      if (value.numel() < kLeastNumbers) {
        const auto type = value.scalar_type() == at::kBFloat16 ? at::kFloat : value.scalar_type();
        averages.exact = {at::zeros_like(value, type), at::zeros_like(value, type)};
      } else {
        averages.first = block_codes(value.numel(), value.device());
        averages.second = block_codes(value.numel(), value.device());
      }
      averages_.push_back(std::move(averages));
    }
  }

  std::map<std::string, at::Tensor> state() const override {
    std::map<std::string, at::Tensor> state;
    for (std::size_t i = 0; i < averages_.size(); ++i) {
      const std::string& name = parameters()[i].name;
      const Averages& own = averages_[i];
      const bool exact = !own.exact.empty();
      state["exp_avg." + name] = exact ? own.exact[0] : own.first.codes;
      state["exp_avg_sq." + name] = exact ? own.exact[1] : own.second.codes;
      if (exact) continue;
      state["exp_avg_scale." + name] = own.first.scales;
      state["exp_avg_sq_scale." + name] = own.second.scales;
    }
    return state;
  }

 private:
  struct Averages {
    BlockCodes first, second;
    std::vector<at::Tensor> exact;  ///< both, of a small tensor
  };

  void update(const Group& group) override {
    const Maps& maps = maps_on(group.values.front().device());
    for (std::size_t i = 0; i < group.values.size(); ++i) {
      const Averages& own = averages_[group.numbers[i]];
      if (!own.exact.empty()) {
        move(group.values[i], group.gradients[i], own.exact[0], own.exact[1], group.learning_rate);
        continue;
      }
      const auto shaped = [&](const at::Tensor& numbers) {
        return numbers.view(group.values[i].sizes());
      };
      const at::Tensor first = decode(own.first, maps.with_sign);
      const at::Tensor second = decode(own.second, maps.without);
      move(group.values[i], group.gradients[i], shaped(first), shaped(second), group.learning_rate);
      encode(own.first, first, maps.with_sign);
      encode(own.second, second, maps.without);
    }
  }

  void move(const at::Tensor& value, const at::Tensor& gradient, const at::Tensor& first,
            const at::Tensor& second, double rate) const {
    const auto number = static_cast<double>(updates());
    first.mul_(options_.beta1).add_(gradient, 1.0 - options_.beta1);
    second.mul_(options_.beta2).addcmul_(gradient, gradient, 1.0 - options_.beta2);
    const double correction1 = 1.0 - std::pow(options_.beta1, number);
    const double correction2 = std::sqrt(1.0 - std::pow(options_.beta2, number));
    const at::Tensor root = second.sqrt().div_(correction2).add_(options_.epsilon);
    value.addcdiv_(first, root, -rate / correction1);
  }

  struct Maps {
    at::Tensor with_sign, without;
  };
  const Maps& maps_on(at::Device device) {
    Maps& maps = maps_[device.str()];
    if (!maps.with_sign.defined())
      maps = {dynamic_map(true).to(device), dynamic_map(false).to(device)};
    return maps;
  }

  AdamWOptions options_;
  std::vector<Averages> averages_;
  std::map<std::string, Maps> maps_;  ///< by device
};

}  // namespace

OptimizerSpec adamw_8bit(const AdamWOptions& options) {
  OptimizerSpec spec = adamw(options);
  spec.name = "adamw8bit";
  spec.state_bytes = [](at::IntArrayRef sizes) {
    const std::int64_t count = c10::multiply_integers(sizes);
    if (count < kLeastNumbers) return 2 * sizeof(float) * static_cast<std::size_t>(count);
    const std::int64_t blocks = (count + kBlockSize - 1) / kBlockSize;
    return 2 * static_cast<std::size_t>(count) +
           2 * sizeof(float) * static_cast<std::size_t>(blocks);
  };
  spec.make = [options](std::vector<Trainable> parameters) {
    return std::make_unique<AdamW8bit>(std::move(parameters), options);
  };
  return spec;
}

}  // namespace ringlet::train
