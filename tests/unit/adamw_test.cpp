#include <cmath>

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ringlet/train/optimizers.h"
#include "tests/tiny_training.h"

namespace ringlet::train {
namespace {

using golden::uniform;

/// The paper's algorithm 2 number by number, its decay pulling towards `start`.
struct PlainAdamW {
  AdamWOptions options;
  std::vector<double> value, start, first, second;
  int updates = 0;

  void step(const std::vector<double>& gradient, double rate) {
    ++updates;
    for (std::size_t i = 0; i < value.size(); ++i) {
      value[i] -= rate * options.weight_decay * (value[i] - start[i]);
      first[i] = options.beta1 * first[i] + (1.0 - options.beta1) * gradient[i];
      second[i] = options.beta2 * second[i] + (1.0 - options.beta2) * gradient[i] * gradient[i];
      const double m = first[i] / (1.0 - std::pow(options.beta1, updates));
      const double v = second[i] / (1.0 - std::pow(options.beta2, updates));
      value[i] -= rate * m / (std::sqrt(v) + options.epsilon);
    }
  }
};

std::vector<double> numbers(const at::Tensor& tensor) {
  const at::Tensor wide = tensor.detach().to(at::kDouble).contiguous();
  return {wide.const_data_ptr<double>(), wide.const_data_ptr<double>() + wide.numel()};
}

struct Case {
  const char* name;
  AdamWOptions options;
  bool pulled;
  at::ScalarType type;
  double tolerance;
};

void PrintTo(const Case& each, std::ostream* out) { *out << each.name; }

class AdamWFormula : public testing::TestWithParam<Case> {};

TEST_P(AdamWFormula, SevenStepsAreThePapers) {
  const Case& each = GetParam();
  Trainable parameter = trainable("w", {3, 7}, each.type);
  if (each.pulled) parameter.start = uniform("anchor", {3, 7}).to(each.type);
  const std::vector<double> zeros(21, 0.0);
  PlainAdamW plain{each.options, numbers(parameter.value),
                   each.pulled ? numbers(parameter.start) : zeros, zeros, zeros};
  const auto optimizer = adamw(each.options).make({parameter});
  for (int step = 0; step < 7; ++step) {
    const double scale = step == 3 ? 1e-9 : std::pow(3.0, step);  // also where epsilon matters
    const at::Tensor gradient = (scale * uniform("g" + std::to_string(step), {3, 7})).to(each.type);
    const double rate = 0.1 / (step + 1);
    parameter.value.mutable_grad() = gradient;
    plain.step(numbers(gradient), rate);
    optimizer->step(rate);
    const std::vector<double> now = numbers(parameter.value);
    for (std::size_t i = 0; i < now.size(); ++i)
      ASSERT_NEAR(now[i], plain.value[i], each.tolerance) << "step " << step << ", number " << i;
  }
  EXPECT_EQ(optimizer->updates(), 7);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, AdamWFormula,
    testing::Values(
        Case{"Usual", {}, false, at::kDouble, 1e-12},
        Case{"LargeDecay", {.weight_decay = 0.7}, false, at::kDouble, 1e-12},
        Case{"NoDecay", {.weight_decay = 0.0}, false, at::kDouble, 1e-12},
        Case{"Pulled", {.weight_decay = 0.7}, true, at::kDouble, 1e-12},
        Case{"PulledNoDecay", {.weight_decay = 0.0}, true, at::kDouble, 1e-12},
        Case{"OtherBetas", {.beta1 = 0.5, .beta2 = 0.9, .epsilon = 1e-3}, true, at::kDouble, 1e-12},
        Case{"Float", {.weight_decay = 0.1}, true, at::kFloat, 2e-6}),
    [](const auto& entry) { return entry.param.name; });

// The pull alone: a gradient of zeros moves a parameter to its start, not to zero.
TEST(AdamW, DecayEndsAtTheStart) {
  Trainable parameter = trainable("w", {4}, at::kDouble);
  parameter.start = uniform("anchor", {4}).to(at::kDouble);
  const auto optimizer = adamw({.weight_decay = 1.0}).make({parameter});
  for (int step = 0; step < 100; ++step) {
    parameter.value.mutable_grad() = at::zeros({4}, at::kDouble);
    optimizer->step(0.5);
  }
  EXPECT_LT((parameter.value - parameter.start).abs().max().item<double>(), 1e-12);
}

// A factor on the rate is another rate, for the update and for the decay.
TEST(AdamW, AFactorIsAnotherRate) {
  Trainable slow = trainable("w", {3, 3});
  const Trainable plain{"v", slow.value.detach().clone().set_requires_grad(true)};
  const Trainable other = trainable("other", {5});
  slow.rate_factor = 0.25;
  const OptimizerSpec spec = adamw({.weight_decay = 0.3});
  const auto together = spec.make({other, slow}), alone = spec.make({plain});
  for (int step = 0; step < 4; ++step) {
    slow.value.mutable_grad() = plain.value.mutable_grad() =
        uniform("g" + std::to_string(step), {3, 3});
    other.value.mutable_grad() = at::ones({5});
    together->step(0.5);
    alone->step(0.125);
    EXPECT_TRUE(same_bits(slow.value, plain.value)) << step;
  }
}

TEST(AdamW, AParameterWithoutGradientIsLeftAlone) {
  const Trainable used = trainable("used", {4}), unused = trainable("unused", {4});
  const auto optimizer = adamw({.weight_decay = 0.5}).make({used, unused});
  const std::vector<at::Tensor> before = values_of({used, unused});
  used.value.mutable_grad() = at::ones({4});
  optimizer->step(0.1);
  EXPECT_FALSE(same_bits(used.value, before[0]));
  EXPECT_TRUE(same_bits(unused.value, before[1]));
  EXPECT_TRUE(at::equal(optimizer->state().at("exp_avg.unused"), at::zeros({4})));
}

// State and count are all that an optimiser has: filled into another one they give the same bits.
TEST(AdamW, ItsStateIsWhatItSays) {
  const auto gradient = [](int step) { return uniform("g" + std::to_string(step), {3, 3}); };
  const Trainable one = trainable("w", {3, 3});
  const auto first = adamw().make({one});
  for (int step = 0; step < 3; ++step) {
    one.value.mutable_grad() = gradient(step);
    first->step(0.01);
  }
  const Trainable other{"w", one.value.detach().clone().set_requires_grad(true), {}};
  const auto second = adamw().make({other});
  const auto from = first->state(), to = second->state();
  ASSERT_EQ(from.size(), 2u);
  for (const auto& [name, tensor] : to) tensor.copy_(from.at(name));
  second->set_updates(first->updates());
  for (int step = 3; step < 6; ++step) {
    one.value.mutable_grad() = gradient(step);
    other.value.mutable_grad() = gradient(step);
    first->step(0.01);
    second->step(0.01);
    EXPECT_TRUE(same_bits(one.value, other.value)) << step;
  }
}

}  // namespace
}  // namespace ringlet::train
