// An optimiser that the library does not know: defined here alone, it trains, saves and resumes.
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <gtest/gtest.h>

#include "ringlet/train/trainer.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace ringlet::train {
namespace {

/// Stochastic gradient descent with momentum (Polyak 1964), as torch.optim.SGD.
class Momentum final : public Optimizer {
 public:
  Momentum(std::vector<Trainable> parameters, double momentum, double weight_decay)
      : Optimizer(std::move(parameters), weight_decay), momentum_(momentum), velocity_(zeros()) {}

  std::map<std::string, at::Tensor> state() const override {
    std::map<std::string, at::Tensor> state;
    add_slot(state, "velocity", velocity_);
    return state;
  }

 private:
  void update(const Group& group) override {
    const std::vector<at::Tensor> velocity = group.of(velocity_);
    at::_foreach_mul_(velocity, momentum_);
    at::_foreach_add_(velocity, group.gradients);
    at::_foreach_add_(group.values, velocity, -group.learning_rate);
  }

  double momentum_;
  std::vector<at::Tensor> velocity_;
};

OptimizerSpec momentum(double momentum, double weight_decay = 0.0) {
  return {"momentum",
          {{"momentum", momentum}, {"weight decay", weight_decay}},
          sizeof(float),
          [=](std::vector<Trainable> parameters) {
            return std::make_unique<Momentum>(std::move(parameters), momentum, weight_decay);
          }};
}

struct MomentumRun {
  explicit MomentumRun(const std::filesystem::path& folder, const OptimizerSpec& optimizer) {
    parameters[1].start = parameters[1].value.detach().clone();
    options.steps = 9;
    options.gradient_accumulation = 2;
    options.learning_rate = {.peak = 0.05, .decay = Decay::linear};
    options.rate_factors = {{"v", 0.5}};
    options.ema_decay = 0.9;
    options.optimizer = optimizer;
    options.checkpoint_folder = folder;
    options.settings = settings_of(options);
  }
  Trainer make() const {
    return {parameters,
            [this](std::int64_t n) {
              const std::string name = std::to_string(n);
              return (parameters[0].value - golden::uniform(name, {6})).square().mean() +
                     (parameters[1].value * golden::uniform("v" + name, {2, 3})).square().mean();
            },
            options};
  }
  std::vector<Trainable> parameters = {trainable("w", {6}), trainable("v", {2, 3})};
  TrainerOptions options = {};
};

TEST(NewOptimizer, ComputesItsFormula) {
  const Trainable parameter = trainable("w", {4});
  const at::Tensor start = parameter.value.detach().clone();
  const auto optimizer = momentum(0.5, 0.1).make({parameter});
  at::Tensor expected = start.clone(), velocity = at::zeros({4});
  for (int step = 0; step < 5; ++step) {
    const at::Tensor gradient = golden::uniform("g" + std::to_string(step), {4});
    parameter.value.mutable_grad() = gradient;
    optimizer->step(0.1);
    velocity = 0.5 * velocity + gradient;
    expected = expected * (1.0 - 0.1 * 0.1) - 0.1 * velocity;
  }
  EXPECT_TRUE(at::allclose(parameter.value.detach(), expected, 1e-6, 1e-7));
  EXPECT_EQ(optimizer->updates(), 5);
}

TEST(NewOptimizer, TrainsSavesAndResumesBitForBit) {
  const TemporaryFolder folder;
  const MomentumRun whole(folder / "whole", momentum(0.9, 0.1));
  double first = 0.0, last = 0.0;
  whole.make().run([&](const StepResult& report) {
    (report.step == 1 ? first : last) = report.loss;
    return true;
  });
  EXPECT_LT(last, first);
  for (const std::int64_t stop : {1, 4, 8}) {
    SCOPED_TRACE(stop);
    const auto parts = folder / ("parts" + std::to_string(stop));
    const MomentumRun before(parts, momentum(0.9, 0.1));
    EXPECT_FALSE(before.make().run([&](const StepResult& step) { return step.step != stop; }));
    const MomentumRun after(parts, momentum(0.9, 0.1));
    Trainer trainer = after.make();
    trainer.resume(*CheckpointFolder(parts, 1).latest());
    EXPECT_TRUE(trainer.run());
    EXPECT_TRUE(same_bits(values_of(after.parameters), values_of(whole.parameters)));
  }
  const TrainState state = CheckpointFolder::load(*CheckpointFolder(folder / "whole", 1).latest());
  EXPECT_TRUE(state.tensors.contains("velocity.w"));
  EXPECT_EQ(state.settings.at("optimizer"), "momentum");
  EXPECT_EQ(state.settings.at("momentum"), 0.9);
}

TEST(NewOptimizer, ItsNumbersAndItsNameMustBeRepeated) {
  const TemporaryFolder folder;
  const MomentumRun run(folder.path(), momentum(0.9));
  run.make().run([](const StepResult& report) { return report.step != 3; });
  const auto checkpoint = *CheckpointFolder(folder.path(), 1).latest();
  const auto resume = [&](const OptimizerSpec& optimizer) {
    const MomentumRun other({}, optimizer);
    other.make().resume(checkpoint);
  };
  expect_error(ErrorCode::mismatch, "momentum was 0.9, now 0.8", [&] { resume(momentum(0.8)); });
  expect_error(ErrorCode::mismatch, "optimizer was \"momentum\", now \"lion\"",
               [&] { resume(lion()); });
}

TEST(OptimizerTable, NamesAreFoundAndNearOnesProposed) {
  EXPECT_EQ(optimizer_names(), (std::vector<std::string>{"adamw", "lion"}));
  for (const std::string& name : optimizer_names()) {
    const OptimizerSpec spec = optimizer_from_name(name);
    EXPECT_EQ(spec.name, name);
    const Trainable parameter = trainable("w", {10});
    std::size_t bytes = 0;
    for (const auto& [slot, tensor] : spec.make({parameter})->state()) bytes += tensor.nbytes();
    EXPECT_EQ(bytes, 10 * spec.bytes_per_parameter);
  }
  EXPECT_EQ(optimizer_from_name("lion").settings.at("betas"), (Json{0.9, 0.99}));
  EXPECT_EQ(optimizer_from_name("adamw").settings.at("betas"), (Json{0.9, 0.999}));
  const OptimizerNumbers numbers{std::pair(0.5, 0.6), 0.25};
  EXPECT_EQ(optimizer_from_name("lion", numbers).settings,
            (Json{{"betas", {0.5, 0.6}}, {"weight decay", 0.25}}));
  expect_error(ErrorCode::invalid_argument, "did you mean \"adamw\"",
               [] { optimizer_from_name("adam"); });
}

}  // namespace
}  // namespace ringlet::train
