// An optimiser that the library does not know: defined here alone, it trains, saves and resumes.
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <gtest/gtest.h>

#include "ringlet/train/stochastic_rounding.h"
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
          floats_per_number(1),
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
  for (const std::string& name : optimizer_names()) {
    const OptimizerSpec spec = optimizer_from_name(name);
    EXPECT_EQ(spec.name, name);
    for (const nn::Shape& shape : {nn::Shape{10}, nn::Shape{6, 4}, nn::Shape{70, 64, 1, 2}}) {
      const Trainable parameter = trainable("w", shape);
      std::size_t bytes = 0;
      for (const auto& [slot, tensor] : spec.make({parameter})->state())
        if (slot.ends_with(".w")) bytes += tensor.nbytes();
      EXPECT_EQ(bytes, spec.state_bytes(shape)) << name << " of " << at::IntArrayRef(shape);
    }
  }
  EXPECT_EQ(optimizer_from_name("lion").settings.at("betas"), (Json{0.9, 0.99}));
  EXPECT_EQ(optimizer_from_name("adamw").settings.at("betas"), (Json{0.9, 0.999}));
  const OptimizerNumbers numbers{std::pair(0.5, 0.6), 0.25, {}};
  EXPECT_EQ(optimizer_from_name("lion", numbers).settings,
            (Json{{"betas", {0.5, 0.6}}, {"weight decay", 0.25}}));
  expect_error(ErrorCode::invalid_argument, "did you mean \"adamw\"",
               [] { optimizer_from_name("adam"); });
}

TEST(OptimizerTable, OptionsOfOneOptimiserAreReadAndWrongOnesRefused) {
  const auto with = [](const std::string& name, const std::string& options) {
    return optimizer_from_name(name, {.betas = {}, .weight_decay = {}, .options = {options}});
  };
  const Json sgd = with("sgd", "momentum=0.5,nesterov=yes").settings;
  EXPECT_EQ(sgd.at("momentum"), 0.5);
  EXPECT_EQ(sgd.at("nesterov"), true);
  EXPECT_EQ(with("adamw", "eps=1e-6").settings.at("eps"), 1e-6);
  EXPECT_FALSE(with("adamw", "").settings.contains("eps"));
  EXPECT_EQ(with("adafactor", "relative_step=yes,scale_parameter=no").usual_rate, 1.0);
  EXPECT_EQ(with("prodigy", "slice_p=11").settings.at("slice p"), 11);
  struct Wrong {
    const char *name, *options, *message;
  };
  for (const Wrong& each : {Wrong{"sgd", "momentun=0.5", "did you mean \"momentum\"?"},
                            {"sgd", "momentum=1.5", "momentum must lie in [0, 1)"},
                            {"sgd", "momentum=much", "momentum=much: it is a number"},
                            {"sgd", "nesterov=perhaps", "it is yes or no"},
                            {"sgd", "momentum=0,nesterov=yes", "nesterov needs a momentum"},
                            {"sgd", "momentum", "\"momentum\" cannot be read"},
                            {"lion", "eps=1", "lion has no \"eps\""},
                            {"prodigy", "slice_p=1.5", "slice_p is a whole number"},
                            {"muon", "betas=0.9", "an option of its own"},
                            {"adafactor", "warmup_init=yes", "needs relative_step=yes"}})
    expect_error(ErrorCode::invalid_argument, each.message, [&] { with(each.name, each.options); });
  expect_error(ErrorCode::invalid_argument, "sgd has none", [] {
    optimizer_from_name("sgd", {.betas = std::pair(0.9, 0.99), .weight_decay = {}, .options = {}});
  });
}

/// Every optimiser of the table, with what has a state of its own, on a vector, a matrix and one
/// that is large enough for codes.
struct TableRun {
  TableRun(const std::filesystem::path& folder, const std::string& name) {
    options.steps = 7;
    options.gradient_accumulation = 2;
    options.optimizer = optimizer_from_name(name);
    const double usual = options.optimizer.usual_rate;
    options.learning_rate = {
        .peak = usual > 0.0 ? usual : 0.01, .decay = Decay::cosine, .warmup = 2};
    options.rate_factors = {{"v", 0.5}};
    options.checkpoint_folder = folder;
    options.settings = settings_of(options);
  }
  Trainer make() const {
    return {parameters,
            [this](std::int64_t n) {
              at::Tensor loss = at::zeros({});
              for (const Trainable& one : parameters)
                loss = loss + (one.value - golden::uniform(one.name + std::to_string(n),
                                                           one.value.sizes().vec()))
                                  .square()
                                  .mean();
              return loss;
            },
            options};
  }
  std::vector<at::Tensor> shown(Trainer& trainer) const {
    const AveragedParameters averaged(trainer);
    return values_of(parameters);
  }
  std::vector<Trainable> parameters = {trainable("w", {6}), trainable("v", {2, 3}),
                                       trainable("large", {70, 64})};
  TrainerOptions options = {};
};

TEST(StochasticRounding, IsExactInTheMean) {
  const at::Tensor numbers = golden::uniform("numbers", {37}) * 3.0;
  at::Tensor sum = at::zeros({37});
  const at::Tensor rounded = at::empty({37}, at::kBFloat16);
  constexpr int kDraws = 4000;
  for (int i = 0; i < kDraws; ++i) {
    round_stochastically(rounded, numbers, static_cast<std::uint64_t>(i) * 7919 + 1);
    sum += rounded.to(at::kFloat);
  }
  // A step is at most 2^-7 of a number; the mean of 4000 draws is within 4.5 deviations.
  const at::Tensor away = (sum / kDraws - numbers).abs();
  EXPECT_TRUE(
      at::all(away <= numbers.abs() * (0.5 / 128.0) * 4.5 / std::sqrt(kDraws)).item<bool>());
  round_stochastically(rounded, at::ones({37}) * -1.5, 5);  // what bf16 holds stays
  EXPECT_TRUE(at::equal(rounded.to(at::kFloat), at::ones({37}) * -1.5));
}

TEST(StochasticRounding, LetsBf16ParametersLearnByStepsThatRoundingWouldLose) {
  for (const std::string& name : optimizer_names()) {
    SCOPED_TRACE(name);
    std::vector<Trainable> parameters;
    for (const nn::Shape& shape : {nn::Shape{50}, nn::Shape{70, 64}}) {
      parameters.push_back({"w" + std::to_string(parameters.size()),
                            at::ones(shape, at::kBFloat16).set_requires_grad(true)});
      parameters.back().value.mutable_grad() = at::ones(shape, at::kBFloat16);
    }
    const OptimizerSpec spec = optimizer_from_name(name);
    const auto optimizer = spec.make(parameters);
    for (const auto& [slot, tensor] : optimizer->state())
      EXPECT_NE(tensor.scalar_type(), at::kBFloat16) << slot;
    // A step of 1e-4 is a fortieth of what bf16 tells from 1.
    for (int step = 0; step < 20; ++step)
      optimizer->step(spec.usual_rate > 0.0 ? spec.usual_rate : 1e-4);
    for (const Trainable& one : parameters) {
      EXPECT_EQ(one.value.scalar_type(), at::kBFloat16);
      EXPECT_LT(one.value.to(at::kFloat).mean().item<double>(), 0.9999);
    }
  }
}

TEST(OptimizerTable, ResumedRunsAreTheUninterruptedBitForBit) {
  for (const std::string& name : optimizer_names())
    for (const double average : {0.0, 0.9}) {
      SCOPED_TRACE(name);
      const TemporaryFolder folder;
      TableRun whole(folder / "whole", name);
      whole.options.ema_decay = average;
      const std::vector<at::Tensor> start = values_of(whole.parameters);
      Trainer all = whole.make();
      EXPECT_TRUE(all.run());
      EXPECT_FALSE(same_bits(values_of(whole.parameters), start));
      TableRun before(folder / "parts", name), after(folder / "parts", name);
      before.options.ema_decay = after.options.ema_decay = average;
      Trainer first = before.make();
      first.run([&](const StepResult& step) { return step.step != 3; });
      before.shown(first);  // looking changes nothing
      EXPECT_FALSE(first.run([&](const StepResult& step) { return step.step != 4; }));
      Trainer second = after.make();
      second.resume(*CheckpointFolder(folder / "parts", 1).latest());
      EXPECT_TRUE(second.run());
      EXPECT_TRUE(same_bits(values_of(after.parameters), values_of(whole.parameters)));
      EXPECT_TRUE(same_bits(after.shown(second), whole.shown(all)));
      const bool other = name == "schedule-free" || average > 0.0;
      EXPECT_EQ(same_bits(whole.shown(all), values_of(whole.parameters)), !other);
    }
}

}  // namespace
}  // namespace ringlet::train
