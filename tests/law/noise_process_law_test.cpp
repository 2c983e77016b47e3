// Laws over every pair of a sampler and a noise process. Two of the processes are defined here and
// nowhere else: a process needs no other file to be sampled and trained.
#include <algorithm>
#include <cmath>
#include <numbers>

#include <gtest/gtest.h>

#include "ringlet/diffusion/noise_process.h"
#include "ringlet/diffusion/rectified_flow.h"
#include "ringlet/diffusion/sampler_table.h"
#include "ringlet/diffusion/schedule.h"
#include "tests/expect_error.h"
#include "tests/law/sampler_laws.h"

namespace ringlet::diffusion {
namespace {

/// Variance preserving with continuous times, from alpha = 0 (Salimans and Ho 2022).
class Cosine final : public NoiseProcess {
 public:
  std::string_view name() const override { return "cosine"; }
  Prediction prediction() const override { return Prediction::v; }
  NoiseLevel level_at(double time) const override {
    if (time == 1.0) return {0.0, 1.0, 1.0};
    const double angle = std::numbers::pi / 2.0 * time;
    return {std::cos(angle), std::sin(angle), time};
  }
};

/// Variance exploding, sigma from 0.002 to 80, with a network that sees x / sqrt(sigma^2 + 1)
/// (Karras et al. 2022).
class Exploding final : public NoiseProcess {
 public:
  std::string_view name() const override { return "EDM"; }
  Prediction prediction() const override { return Prediction::epsilon; }
  NoiseLevel level_at(double time) const override {
    const double sigma = 0.002 * std::pow(80.0 / 0.002, time);
    return {1.0, sigma, std::log(sigma) / 4.0};
  }
  double input_scale(const NoiseLevel& level) const override {
    return 1.0 / std::hypot(level.sigma, 1.0);
  }
};

std::shared_ptr<const NoiseProcess> flow(double shift = 1.0) {
  RectifiedFlowConfig config;
  config.shift = shift;
  return std::make_shared<RectifiedFlow>(config);
}

std::shared_ptr<const NoiseProcess> flow_by_size() {
  RectifiedFlowConfig config;
  config.dynamic_shift = true;
  return std::make_shared<RectifiedFlow>(config);
}

constexpr PictureSize kSize{.width = 1024, .height = 768};

struct Process {
  const char* name;
  std::shared_ptr<const NoiseProcess> process;
};

std::vector<Process> processes() {
  return {{"flow", flow()},
          {"shifted_flow", flow(3.0)},
          {"flow_by_size", flow_by_size()},
          {"cosine", std::make_shared<Cosine>()},
          {"exploding", std::make_shared<Exploding>()}};
}

struct ProcessCase {
  SamplerChoice sampler;
  Process process;
};

class NoiseProcessLaw : public testing::TestWithParam<ProcessCase> {
 protected:
  static SamplingSteps path(std::int64_t steps, std::optional<Spacing> spacing = {}) {
    SamplerChoice choice = GetParam().sampler;
    choice.spacing = spacing;
    return choice.steps(GetParam().process.process, steps, kSize);
  }
};

TEST_P(NoiseProcessLaw, APointIsFound) {
  const at::Tensor x0 = numbers("x0");
  for (const auto spacing : {Spacing::trailing, Spacing::linspace})
    for (const std::int64_t steps : {1, 2, 3, 4, 7, 16, 30})
      for (const double eta : {0.0, 0.7})
        for (const std::int64_t start : {std::int64_t{0}, steps / 2}) {
          SamplingSteps walked = path(steps, spacing);
          walked.start = static_cast<std::size_t>(start);
          walked.eta = eta;
          EXPECT_LE(difference(sample_point(GetParam().sampler, walked, x0), x0), 1e-9)
              << steps << " from " << start;
        }
}

TEST_P(NoiseProcessLaw, RowsAreIndependent) {
  EXPECT_LE(row_dependence(GetParam().sampler, path(6)), 1e-12);
}

TEST_P(NoiseProcessLaw, StepsDescendFromTheHighestLevelToCleanLatents) {
  for (const std::int64_t steps : {1, 2, 20, 50}) {
    const SamplingSteps walked = path(steps);
    ASSERT_EQ(static_cast<std::int64_t>(walked.steps.size()), steps);
    const NoiseLevel first = GetParam().process.process->level_at(1.0);
    // The solvers' own grids of rectified flow begin up to one training level below pure noise.
    const bool solver = is_multistep(GetParam().sampler.entry->grid) &&
                        GetParam().process.process->name() == "rectified flow";
    const double tolerance = solver ? 1e-3 : 1e-12;
    EXPECT_NEAR(walked.steps.front().from.alpha, first.alpha, solver ? tolerance : 0.0);
    EXPECT_NEAR(walked.steps.front().from.sigma, first.sigma, tolerance * first.sigma);
    EXPECT_EQ(walked.initial_sigma, solver ? 1.0 : walked.steps.front().from.sigma);
    for (const SamplingStep& step : walked.steps) ASSERT_LT(step.to.sigma, step.from.sigma);
    EXPECT_EQ(walked.steps.back().to.alpha, 1.0);
    EXPECT_EQ(walked.steps.back().to.sigma, 0.0);
  }
}

bool makes_sense(const SamplerChoice& sampler, const NoiseProcess& process) {
  // Karras sigmas of a process that begins at an infinite ratio are a rule of its own.
  const bool endless = std::isinf(process.level_at(1.0).ratio());
  const bool own_rule = process.name() == "rectified flow";
  return sampler.entry->runs_on(process) && (!sampler.karras || !endless || own_rule);
}

std::vector<ProcessCase> process_cases() {
  std::vector<ProcessCase> cases;
  for (const Process& process : processes())
    for (const SamplerEntry& entry : sampler_table())
      for (const bool karras : {false, true}) {
        const SamplerChoice choice{&entry, karras};
        const bool has_karras = entry.takes_karras();
        if ((!karras || has_karras) && makes_sense(choice, *process.process))
          cases.push_back({choice, process});
      }
  return cases;
}

std::string process_case_name(const testing::TestParamInfo<ProcessCase>& entry) {
  std::string name = entry.param.sampler.name() + "_" + entry.param.process.name;
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Table, NoiseProcessLaw, testing::ValuesIn(process_cases()),
                         process_case_name);

// From pure noise, where log-SNR is minus infinity: a multistep formula that clamped it would lose
// its order there.
TEST(SamplerOrder, HoldsFromPureNoise) {
  const std::vector<Process> endless = {{"flow", flow()}, {"cosine", std::make_shared<Cosine>()}};
  for (const Process& process : endless)
    for (const auto& [name, factor, most] : {std::tuple{"ddim", 1.9, 0.01},
                                             {"euler", 1.9, 0.01},
                                             {"heun", 3.0, 2e-4},
                                             {"dpmpp-2m", 3.0, 1e-3},
                                             {"unipc", 3.0, 3e-4}}) {
      SamplerChoice choice = find_sampler(name);
      choice.spacing = Spacing::trailing;
      const double coarse = probability_flow_error(choice, choice.steps(process.process, 160));
      const double fine = probability_flow_error(choice, choice.steps(process.process, 320));
      EXPECT_GT(coarse / fine, factor) << name << " on " << process.name;
      EXPECT_LT(fine, most) << name << " on " << process.name;
    }
}

TEST(SamplerTable, WhatNeedsWholeTimestepsIsRefusedElsewhere) {
  for (const char* name : {"pndm", "lcm"}) {
    const SamplerChoice choice = find_sampler(name);
    expect_error(ErrorCode::unsupported, "this model's noise process is rectified flow",
                 [&] { choice.steps(flow(), 4); });
    EXPECT_NO_THROW(choice.steps(std::make_shared<Schedule>(ScheduleConfig()), 4));
  }
  expect_error(ErrorCode::unsupported, "begins in pure noise",
               [] { find_sampler("euler-karras").steps(std::make_shared<Cosine>(), 4); });
  for (const Process& process : processes()) {
    EXPECT_EQ(default_sampler(*process.process).name(), "euler");
    SamplerChoice leading = find_sampler("euler");
    leading.spacing = Spacing::leading;
    expect_error(ErrorCode::invalid_argument, "highest noise levels",
                 [&] { leading.steps(process.process, 4, kSize); });
  }
}

TEST(NoiseProcess, RatiosAndLevelsAreInverse) {
  for (const Process& process : processes())
    for (const double time : {0.01, 0.3, 0.77, 0.99, 1.0}) {
      const NoiseLevel level = process.process->level_at(time);
      const NoiseLevel found = process.process->level_at_ratio(level.ratio());
      EXPECT_NEAR(found.sigma, level.sigma, 1e-12 * level.sigma) << process.name;
      EXPECT_NEAR(found.timestep, level.timestep, 1e-9 * (1.0 + std::abs(level.timestep)));
    }
}

// What training needs holds for every process: the target is what the samplers read back.
TEST(NoiseProcess, EstimatesUndoTrainingTargets) {
  const at::Tensor x0 = numbers("x0"), epsilon = draw(3);
  for (const Process& process : processes())
    for (const double time : {0.2, 0.9, 1.0})
      for (const auto prediction :
           {Prediction::epsilon, Prediction::v, Prediction::sample, Prediction::flow}) {
        const NoiseLevel level = process.process->level_at(time);
        if (prediction == Prediction::epsilon && level.alpha == 0.0) continue;
        const Estimate found = estimate(prediction, training_target(prediction, x0, epsilon, level),
                                        add_noise(x0, epsilon, level), level);
        EXPECT_LE(difference(found.x0, x0), 1e-9) << process.name << time;
        EXPECT_LE(difference(found.epsilon, epsilon), 1e-9) << process.name << time;
      }
}

// Whatever the network says, weighted squared errors are one loss of x0.
TEST(NoiseProcess, MinSnrWeightsAgreeBetweenPredictions) {
  constexpr double kGamma = 5.0;
  const at::Tensor x0 = numbers("x0"), epsilon = draw(3), wrong = numbers("wrong");
  for (const Process& process : processes())
    for (const double time : {0.1, 0.5, 0.9}) {
      const NoiseLevel level = process.process->level_at(time);
      const at::Tensor x = add_noise(x0, epsilon, level);
      const auto loss = [&](Prediction prediction) {
        // A network whose estimate of x0 is off by `wrong`, and of epsilon accordingly.
        const at::Tensor other = (x - level.alpha * (x0 + wrong)) / level.sigma;
        const at::Tensor error = training_target(prediction, x0 + wrong, other, level) -
                                 training_target(prediction, x0, epsilon, level);
        return min_snr_weight(prediction, level, kGamma) * error.square().mean().item<double>();
      };
      const double want = loss(Prediction::sample);
      for (const auto prediction : {Prediction::epsilon, Prediction::v, Prediction::flow})
        EXPECT_NEAR(loss(prediction), want, 1e-9 * want) << process.name << time;
    }
}

}  // namespace
}  // namespace ringlet::diffusion
