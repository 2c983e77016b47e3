#include "ringlet/train/trainer.h"

#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <stdexcept>

#include <gtest/gtest.h>

#include "ringlet/io/tensor_file.h"
#include "ringlet/train/part_rates.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/log_capture.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;
using golden::uniform;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// A loss of two parameters whose target is another one in every micro-batch.
struct Toy {
  explicit Toy(at::ScalarType scalar_type = at::kFloat)
      : type(scalar_type), parameters{trainable("w", {5}, type), trainable("v", {3, 4}, type)} {
    parameters[1].start = parameters[1].value.detach().clone();
  }

  at::Tensor loss(std::int64_t micro_batch) const {
    const std::string name = std::to_string(micro_batch);
    const at::Tensor w = parameters[0].value, v = parameters[1].value;
    return (w - 2.0 * uniform("w" + name, {5}).to(type)).square().mean() +
           (v * uniform("v" + name, {3, 4}).to(type)).tanh().sum() + 3.0 +
           w.sum() * v.square().mean();
  }

  LossFunction function() const {
    return [this](std::int64_t micro_batch) { return loss(micro_batch); };
  }

  at::ScalarType type;
  std::vector<Trainable> parameters;
};

std::vector<StepResult> reports_of(Trainer& trainer, std::int64_t stop_after = -1) {
  std::vector<StepResult> reports;
  trainer.run([&](const StepResult& report) {
    reports.push_back(report);
    return report.step != stop_after;
  });
  return reports;
}

double difference(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  double largest = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i)
    largest = std::max(largest, (a[i] - b[i]).abs().max().item<double>());
  return largest;
}

TEST(Trainer, LearnsAndReports) {
  const Toy toy;
  Trainer trainer(toy.parameters, toy.function(),
                  {.steps = 3, .learning_rate = {.peak = 0.1, .decay = Decay::linear}});
  const double first_loss = toy.loss(0).item<double>();
  const std::vector<at::Tensor> start = values_of(toy.parameters);
  const std::vector<StepResult> reports = reports_of(trainer);
  ASSERT_EQ(reports.size(), 3u);
  EXPECT_EQ(trainer.steps_done(), 3);
  EXPECT_EQ(trainer.skipped(), 0);
  EXPECT_DOUBLE_EQ(reports[0].loss, first_loss);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(reports[i].step, static_cast<std::int64_t>(i) + 1);
    EXPECT_DOUBLE_EQ(reports[i].learning_rate, 0.1 * (3.0 - static_cast<double>(i)) / 3.0);
    EXPECT_GT(reports[i].gradient_norm, 0.0);
    EXPECT_GE(reports[i].seconds, 0.0);
    EXPECT_FALSE(reports[i].skipped);
  }
  EXPECT_GT(difference(start, values_of(toy.parameters)), 0.01);
}

TEST(Trainer, FactorsOfTheRateGoByName) {
  const std::vector<Trainable> named = {trainable("unet.a.transform.core_0", {1}),
                                        trainable("unet.a.residual.up", {1}),
                                        trainable("unet.b.residual.up", {1})};
  const auto factors_of = [&](const RateFactors& factors) {
    std::vector<double> found;
    for (const Trainable& one : with_rates(named, {.rate_factors = factors}))
      found.push_back(one.rate_factor);
    return found;
  };
  EXPECT_EQ(factors_of({}), (std::vector<double>{1.0, 1.0, 1.0}));
  EXPECT_EQ(factors_of({{"*.transform.*", 0.5}}), (std::vector<double>{0.5, 1.0, 1.0}));
  // The last match counts, and zero is a factor: that parameter stays where it is.
  EXPECT_EQ(factors_of({{"*.up", 16.0}, {"re:b\\.residual", 0.0}}),
            (std::vector<double>{1.0, 16.0, 0.0}));
  for (const auto& [pattern, factor] : RateFactors{{"*.down", 1.0},
                                                   {"*.up", -1.0},
                                                   {"*.up", std::nan("")},
                                                   {"*.up", INFINITY},
                                                   {"re:[", 1.0}})
    expect_error(ErrorCode::invalid_argument,
                 "learning_rate_factor: ", [&, pattern = pattern, factor = factor] {
                   factors_of({{pattern, factor}});
                 });

  // Peaks of their own replace factors, and LoRA+ multiplies either.
  TrainerOptions all = {.learning_rate = {.peak = 1e-3},
                        .rate_factors = {{"*.up", 3.0}},
                        .part_rates = {{"unet.b.*", 1e-4}}};
  all.lora_plus_ratio = 16.0;
  const std::vector<Trainable> rated = with_rates(named, all);
  EXPECT_EQ(rated[0].rate_factor, 1.0);
  EXPECT_EQ(rated[1].rate_factor, 48.0);
  EXPECT_DOUBLE_EQ(rated[2].rate_factor, 1.6);
  expect_error(ErrorCode::invalid_argument, "part_learning_rate: \"te*\" matches no parameter",
               [&] {
                 with_rates(named, {.part_rates = {{"te*", 1e-4}}});
               });
  all.part_rates = all.rate_factors = {};
  expect_error(ErrorCode::invalid_argument, "no matrix that starts at zero",
               [&] { with_rates({named[0]}, all); });

  const std::vector<at::Tensor> before = values_of(named);
  Trainer trainer(named, [&](std::int64_t) { return (named[0].value + named[1].value).sum(); },
                  {.steps = 1,
                   .learning_rate = {.peak = 0.1},
                   .rate_factors = {{"*.transform.*", 0.5}},
                   .optimizer = adamw({.weight_decay = 0.0})});
  reports_of(trainer);
  EXPECT_NEAR((before[0] - named[0].value).item<double>(), 0.05, 1e-6);
  EXPECT_NEAR((before[1] - named[1].value).item<double>(), 0.1, 1e-6);
}

/// exp_avg after one step is (1 - beta1) times the gradient that the optimiser saw.
std::vector<at::Tensor> first_gradient(double clip_norm, double* reported) {
  const TemporaryFolder folder;
  const std::vector<Trainable> parameters = {trainable("a", {1}), trainable("b", {1})};
  Trainer trainer(
      parameters,
      [&](std::int64_t) { return (3.0 * parameters[0].value + 4.0 * parameters[1].value).sum(); },
      {.steps = 1, .clip_norm = clip_norm, .checkpoint_folder = folder.path()});
  *reported = reports_of(trainer).front().gradient_norm;
  const TrainState state = CheckpointFolder::load(folder / "step-00000001.safetensors");
  return {state.tensors.at("exp_avg.a") / 0.1, state.tensors.at("exp_avg.b") / 0.1};
}

TEST(Trainer, TheWholeGradientIsClippedToANorm) {
  for (const auto& [limit, factor] : std::vector<std::pair<double, double>>{
           {1.0, 0.2}, {2.5, 0.5}, {5.1, 1.0}, {1000.0, 1.0}, {0.0, 1.0}}) {
    double norm = 0.0;
    const std::vector<at::Tensor> gradient = first_gradient(limit, &norm);
    EXPECT_NEAR(norm, 5.0, 1e-6);  // before clipping
    EXPECT_NEAR(gradient[0].item<double>(), 3.0 * factor, 1e-5) << limit;
    EXPECT_NEAR(gradient[1].item<double>(), 4.0 * factor, 1e-5) << limit;
  }
}

TEST(Trainer, AccumulatedMicroBatchesAreTheirMean) {
  const Toy apart(at::kDouble), together(at::kDouble);
  TrainerOptions options{.steps = 4, .learning_rate = {.peak = 0.1}};
  std::vector<std::int64_t> asked;
  options.gradient_accumulation = 2;
  Trainer first(
      apart.parameters,
      [&](std::int64_t n) {
        asked.push_back(n);
        return apart.loss(n);
      },
      options);
  options.gradient_accumulation = 1;
  Trainer second(
      together.parameters,
      [&](std::int64_t n) { return (together.loss(2 * n) + together.loss(2 * n + 1)) / 2.0; },
      options);
  const auto a = reports_of(first), b = reports_of(second);
  EXPECT_EQ(asked, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i].loss, b[i].loss, 1e-12);
    EXPECT_NEAR(a[i].gradient_norm, b[i].gradient_norm, 1e-12);
  }
  EXPECT_LT(difference(values_of(apart.parameters), values_of(together.parameters)), 1e-12);
}

TEST(Trainer, AveragesFollowTheirFormula) {
  const Toy toy(at::kDouble);
  Trainer trainer(toy.parameters, toy.function(),
                  {.steps = 30, .learning_rate = {.peak = 0.05}, .ema_decay = 0.6});
  std::vector<at::Tensor> expected = values_of(toy.parameters);
  int updates = 0;
  trainer.run([&](const StepResult&) {
    ++updates;  // a short memory at first
    const double decay = std::min(0.6, (1.0 + updates) / (10.0 + updates));
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] = decay * expected[i] + (1.0 - decay) * toy.parameters[i].value.detach();
    return true;
  });
  const std::vector<at::Tensor> last = values_of(toy.parameters);
  EXPECT_GT(difference(last, expected), 1e-3);
  trainer.swap_averages();
  EXPECT_LT(difference(values_of(toy.parameters), expected), 1e-12);
}

TEST(Trainer, SwappingTwiceRestoresEveryBit) {
  const Toy toy;
  Trainer trainer(toy.parameters, toy.function(),
                  {.steps = 5, .learning_rate = {.peak = 0.05}, .ema_decay = 0.9});
  trainer.run();
  const std::vector<at::Tensor> last = values_of(toy.parameters);
  trainer.swap_averages();
  const std::vector<at::Tensor> averages = values_of(toy.parameters);
  EXPECT_FALSE(same_bits(averages, last));
  trainer.swap_averages();
  EXPECT_TRUE(same_bits(values_of(toy.parameters), last));
  trainer.swap_averages();
  EXPECT_TRUE(same_bits(values_of(toy.parameters), averages));
  for (const Trainable& parameter : toy.parameters) EXPECT_TRUE(parameter.value.requires_grad());
}

TEST(Trainer, WithoutAveragesSwappingDoesNothing) {
  const Toy toy;
  Trainer trainer(toy.parameters, toy.function(), {.steps = 2});
  trainer.run();
  const std::vector<at::Tensor> last = values_of(toy.parameters);
  trainer.swap_averages();
  EXPECT_TRUE(same_bits(values_of(toy.parameters), last));
}

// --- what is not finite ---

/// How a step can go wrong.
struct Bad {
  const char* name;
  std::function<at::Tensor(const Toy&)> loss;
};

void PrintTo(const Bad& bad, std::ostream* out) { *out << bad.name; }

class NotFinite : public testing::TestWithParam<Bad> {
 protected:
  /// Runs `steps` steps of two micro-batches, the bad ones at these micro-batches.
  std::vector<StepResult> run(const Toy& toy, std::int64_t steps,
                              const std::set<std::int64_t>& bad) const {
    Trainer trainer(
        toy.parameters,
        [&](std::int64_t n) { return bad.contains(n) ? GetParam().loss(toy) : toy.loss(n); },
        {.steps = steps,
         .gradient_accumulation = 2,
         .learning_rate = {.peak = 0.1},
         .ema_decay = 0.9,
         .checkpoint_folder = folder_.path()});
    const auto reports = reports_of(trainer);
    std::int64_t skipped = 0;
    for (const StepResult& report : reports) skipped += report.skipped ? 1 : 0;
    EXPECT_EQ(trainer.skipped(), skipped);
    return reports;
  }

  TemporaryFolder folder_;
};

TEST_P(NotFinite, StepsAreSkippedAndSaid) {
  for (const std::int64_t at : {0, 1, 6, 13}) {  // either half of the first, a middle, the last
    SCOPED_TRACE(at);
    const LogCapture log;
    const Toy toy;
    const auto reports = run(toy, 7, {at});
    ASSERT_EQ(reports.size(), 7u);
    for (const StepResult& report : reports) {
      EXPECT_EQ(report.skipped, report.step == at / 2 + 1);
      EXPECT_TRUE(report.skipped ||
                  (std::isfinite(report.loss) && std::isfinite(report.gradient_norm)));
    }
    EXPECT_NE(log.warnings().find("step " + std::to_string(at / 2 + 1) + ": "), std::string::npos)
        << log.warnings();
    for (const at::Tensor& value : values_of(toy.parameters))
      EXPECT_TRUE(value.isfinite().all().item<bool>());
    const TrainState state = CheckpointFolder::load(folder_ / "step-00000007.safetensors");
    EXPECT_EQ(state.updates, 6);
    EXPECT_EQ(state.skipped, 1);
  }
}

// Parameters, averages and optimiser are as if the step had not been.
TEST_P(NotFinite, ASkippedStepLeavesNoTrace) {
  const auto final_state = [&](const Toy& toy, const std::vector<std::int64_t>& batches) {
    const TemporaryFolder folder;
    Trainer trainer(toy.parameters,
                    [&](std::int64_t n) {
                      const std::int64_t batch = batches[static_cast<std::size_t>(n)];
                      return batch < 0 ? GetParam().loss(toy) : toy.loss(batch);
                    },
                    {.steps = static_cast<std::int64_t>(batches.size()),
                     .learning_rate = {.peak = 0.1},
                     .ema_decay = 0.9,
                     .checkpoint_folder = folder.path()});
    trainer.run();
    std::map<std::string, at::Tensor> all;
    const auto latest = CheckpointFolder(folder.path(), 1).latest();
    for (const auto& [name, tensor] : CheckpointFolder::load(*latest).tensors)
      all[name] = tensor.clone();
    return all;
  };
  const Toy a, b;
  const auto skipping = final_state(a, {0, 1, -1, 2, -1, -1, 3});
  const auto plain = final_state(b, {0, 1, 2, 3});
  ASSERT_EQ(skipping.size(), plain.size());
  for (const auto& [name, tensor] : plain)
    EXPECT_TRUE(same_bits(skipping.at(name), tensor)) << name;
}

std::set<std::int64_t> from(std::int64_t first, std::int64_t last) {
  std::set<std::int64_t> all;
  for (std::int64_t n = first; n <= last; ++n) all.insert(n);
  return all;
}

TEST_P(NotFinite, TenInARowEndTheRunWithTheLastGoodState) {
  const Toy toy, good;
  expect_error(ErrorCode::non_finite, "step-00000013.safetensors",
               [&] { run(toy, 100, from(6, 1000)); });
  const auto latest = CheckpointFolder(folder_.path(), 1).latest();
  ASSERT_TRUE(latest);
  const TrainState state = CheckpointFolder::load(*latest);
  EXPECT_EQ(state.step, 13);
  EXPECT_EQ(state.updates, 3);
  EXPECT_EQ(state.skipped, 10);
  run(good, 3, {});
  EXPECT_TRUE(same_bits(values_of(toy.parameters), values_of(good.parameters)));
  for (const Trainable& parameter : toy.parameters)
    EXPECT_TRUE(same_bits(state.tensors.at("parameter." + parameter.name), parameter.value));
}

TEST_P(NotFinite, NineInARowAreBorne) {
  const Toy toy;
  std::set<std::int64_t> bad = from(2, 19);  // steps 2 to 10
  bad.merge(from(22, 39));                   // and 12 to 20
  const auto reports = run(toy, 21, bad);
  EXPECT_EQ(reports.size(), 21u);
  EXPECT_EQ(CheckpointFolder::load(folder_ / "step-00000021.safetensors").skipped, 18);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, NotFinite,
    testing::Values(Bad{"LossNaN", [](const Toy& toy) { return toy.loss(0) * kNaN; }},
                    Bad{"LossInfinite", [](const Toy& toy) { return toy.loss(0) / 0.0; }},
                    // The loss is 0, its gradient 0 * inf.
                    Bad{"GradientNaN",
                        [](const Toy& toy) {
                          const at::Tensor& w = toy.parameters[0].value;
                          return (w - w).sqrt().sum() + toy.loss(0);
                        }},
                    Bad{"GradientOverflows",
                        [](const Toy& toy) {
                          return (toy.parameters[1].value * 1e-30).sum() * 1e30 * 1e30 +
                                 toy.parameters[1].value.sum() * 1e25;
                        }}),
    [](const auto& entry) { return entry.param.name; });

TEST(Trainer, WithoutAFolderTenBadStepsAreStillAnError) {
  const Toy toy;
  Trainer trainer(toy.parameters, [&](std::int64_t) { return toy.loss(0) * kNaN; }, {.steps = 50});
  expect_error(ErrorCode::non_finite, "10 steps in a row", [&] { trainer.run(); });
  EXPECT_EQ(trainer.steps_done(), 10);
}

// An update that overflows cannot be undone; but no checkpoint holds it.
TEST(Trainer, ParametersThatOverflowAreNotSaved) {
  const TemporaryFolder folder;
  const Toy toy;
  Trainer trainer(toy.parameters, toy.function(),
                  {.steps = 3,
                   .learning_rate = {.peak = 1e39},
                   .checkpoint_every = 1,
                   .checkpoint_folder = folder.path()});
  expect_error(ErrorCode::non_finite, "parameter.", [&] { trainer.run(); });
  EXPECT_FALSE(CheckpointFolder(folder.path(), 1).latest());
}

}  // namespace
}  // namespace ringlet::train
