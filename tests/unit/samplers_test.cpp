// What holds for samplers, their steps and schedules beyond the golden trajectories.
#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "ringlet/diffusion/rectified_flow.h"
#include "ringlet/diffusion/sampler_table.h"
#include "ringlet/diffusion/schedule.h"
#include "tests/expect_error.h"
#include "tests/golden/formula.h"
#include "tests/log_capture.h"

namespace ringlet::diffusion {
namespace {

using golden::uniform;

const nn::Shape kShape = {1, 4, 3, 2};

ScheduleConfig config_of(bool zero_snr = false) {
  ScheduleConfig config;
  config.zero_terminal_snr = zero_snr;
  config.prediction = zero_snr ? Prediction::v : Prediction::epsilon;
  return config;
}

std::shared_ptr<const NoiseProcess> process_of(const ScheduleConfig& config) {
  return std::make_shared<Schedule>(config);
}

/// A network without meaning, but bounded and smooth.
at::Tensor network(const at::Tensor& x, const NoiseLevel&) { return 0.3 * x.tanh(); }

at::Tensor draw(std::int64_t index) { return uniform("noise" + std::to_string(index), kShape); }

TEST(SamplerNames, EverySpellingIsFound) {
  for (const SamplerEntry& entry : sampler_table()) {
    EXPECT_EQ(find_sampler(entry.name).entry, &entry);
    EXPECT_EQ(find_sampler(entry.label).entry, &entry);
    if (!entry.diffusers_class.empty()) {
      EXPECT_EQ(find_sampler(entry.diffusers_class).entry, &entry);
    }
    // What is written into pictures must be understood when it is read back.
    EXPECT_EQ(find_sampler(SamplerChoice{&entry}.label()).entry, &entry);
  }
  EXPECT_EQ(find_sampler("k_euler_a").name(), "euler-ancestral");
  EXPECT_EQ(find_sampler("DPM++ 2M Karras").name(), "dpmpp-2m-karras");
  EXPECT_EQ(find_sampler("dpmpp_2m_karras").label(), "DPM++ 2M Karras");
  EXPECT_EQ(find_sampler("PLMS").name(), "pndm");
}

TEST(SamplerNames, UnknownNamesSuggestTheNearest) {
  const auto expect_hint = [](const char* name, const char* near) {
    expect_error(ErrorCode::invalid_argument,
                 std::string("sampler: there is no sampler \"") + name + "\"\n  did you mean \"" +
                     near + "\"?",
                 [&] { find_sampler(name); });
  };
  expect_hint("eulr", "euler");
  expect_hint("dpmp-2m", "dpmpp-2m");
  expect_hint("dpmpp-2m-karas", "dpmpp-2m-karras");
  expect_error(ErrorCode::invalid_argument, "known: ddim, ddpm",
               [] { find_sampler("xyzzyxyzzy"); });
  for (const char* name : {"", "-karras", "karras", " "})
    expect_error(ErrorCode::invalid_argument, "there is no sampler", [&] { find_sampler(name); });
}

// These grids have no sigmas to place by Karras' rule; dropping the suffix would lie.
TEST(SamplerNames, KarrasIsRefusedWhereItHasNoMeaning) {
  for (const char* name : {"ddim-karras", "DDPM Karras", "plms-karras", "lcm-karras"})
    expect_error(ErrorCode::invalid_argument, "there is no sampler", [&] { find_sampler(name); });
}

TEST(SamplerNames, TheModelsOwnSamplerIsTaken) {
  ScheduleConfig config = config_of();
  config.scheduler_class = "DPMSolverMultistepScheduler";
  config.karras_sigmas = true;
  EXPECT_EQ(default_sampler(*process_of(config)).name(), "dpmpp-2m-karras");
  config.sde = true;
  EXPECT_EQ(default_sampler(*process_of(config)).name(), "dpmpp-2m-sde-karras");
  config = config_of();
  config.scheduler_class = "DDIMScheduler";
  config.karras_sigmas = true;  // has no meaning there
  EXPECT_EQ(default_sampler(*process_of(config)).name(), "ddim");
}

TEST(SamplerNames, AnUnknownSamplerOfAModelBecomesEulerWithAWarning) {
  const LogCapture capture;
  ScheduleConfig config = config_of();
  EXPECT_EQ(default_sampler(*process_of(config)).name(), "euler");
  EXPECT_EQ(capture.warnings(), "");
  config.scheduler_class = "TCDScheduler";
  EXPECT_EQ(default_sampler(*process_of(config)).name(), "euler");
  EXPECT_NE(capture.warnings().find("TCDScheduler"), std::string::npos);
}

TEST(Schedule, LevelsAreVariancePreservingAndDescend) {
  for (const bool zero_snr : {false, true}) {
    const Schedule schedule(config_of(zero_snr));
    double before = 1.0;
    for (std::int64_t t = 0; t < schedule.training_steps(); ++t) {
      const NoiseLevel level = schedule.level(t);
      ASSERT_NEAR(level.alpha * level.alpha + level.sigma * level.sigma, 1.0, 1e-12);
      ASSERT_LT(level.alpha, before) << t;
      before = level.alpha;
      ASSERT_EQ(level.timestep, static_cast<double>(t));
    }
  }
}

TEST(Schedule, ZeroTerminalSnrEndsInPureNoiseButKeepsRatiosFinite) {
  const Schedule schedule(config_of(true));
  EXPECT_EQ(schedule.level(999).alpha, 0.0);
  EXPECT_EQ(schedule.level(999).sigma, 1.0);
  EXPECT_TRUE(std::isfinite(schedule.ratios().back()));
  EXPECT_NEAR(schedule.level_at_timestep(999).ratio(), 4096.0, 1.0);
  // The first level is that of the schedule without rescaling.
  EXPECT_NEAR(schedule.level(0).alpha, Schedule(config_of()).level(0).alpha, 1e-6);
}

TEST(Schedule, RatioAndTimestepAreInverse) {
  for (const bool zero_snr : {false, true}) {
    const Schedule schedule(config_of(zero_snr));
    for (std::int64_t t = 0; t < 1000; t += 37) {
      const double ratio = schedule.ratios()[static_cast<std::size_t>(t)];
      EXPECT_NEAR(schedule.level_at_ratio(ratio).timestep, static_cast<double>(t), 1e-6);
      EXPECT_NEAR(schedule.level_at_timestep(static_cast<double>(t)).ratio(), ratio, 1e-9 * ratio);
    }
    EXPECT_EQ(schedule.level_at_ratio(1e9).timestep, 999.0);  // beyond the ends
    EXPECT_EQ(schedule.level_at_ratio(0.0).timestep, 0.0);
  }
}

// An epsilon model cannot say anything at zero SNR: dividing by zero would give NaN pictures.
TEST(Schedule, EpsilonAtZeroSnrIsRefused) {
  ScheduleConfig config = config_of(true);
  config.prediction = Prediction::epsilon;
  config.spacing = Spacing::trailing;
  const SamplingSteps path = find_sampler("ddim").steps(process_of(config), 5);
  expect_error(ErrorCode::unsupported, "zero terminal SNR",
               [&] { sample_ddim(network, uniform("x", kShape), path, draw, {}); });
}

TEST(Schedule, FieldsThatWouldChangeTheResultAreRefused) {
  const auto expect = [](ErrorCode code, const Json& fields, const char* words) {
    Json json = {{"_class_name", "DDIMScheduler"}};
    json.update(fields);
    expect_error(code, words, [&] { ScheduleConfig::from_json(json, "scheduler_config.json"); });
  };
  expect(ErrorCode::unsupported, {{"thresholding", true}}, "\"thresholding\" is true");
  expect(ErrorCode::unsupported, {{"beta_schedule", "sigmoid"}}, "sigmoid");
  expect(ErrorCode::unsupported, {{"prediction_type", "flow"}}, "flow");
  expect(ErrorCode::unsupported, {{"timestep_spacing", "random"}}, "random");
  expect(ErrorCode::unsupported, {{"use_beta_sigmas", true}}, "use_beta_sigmas");
  expect(ErrorCode::unsupported, {{"timestep_type", "continuous"}}, "timestep_type");
  expect(ErrorCode::unsupported, {{"sigma_max", 120.0}}, "sigma_max");
  // Schedulers of Playground v2.5, CosXL and models of flow matching have no betas.
  expect(ErrorCode::unsupported, {{"_class_name", "EDMEulerScheduler"}, {"sigma_data", 0.5}},
         "EDMEulerScheduler, which has no betas");
  expect(ErrorCode::unsupported, {{"_class_name", "FlowMatchEulerDiscreteScheduler"}},
         "FlowMatchEulerDiscreteScheduler");
  expect(ErrorCode::bad_format, {{"num_train_timesteps", 1}}, "num_train_timesteps");
  expect(ErrorCode::bad_format, {{"num_train_timesteps", 1000000000}}, "num_train_timesteps");
  expect(ErrorCode::bad_format, {{"beta_start", 0.0}}, "betas");
  expect(ErrorCode::bad_format, {{"beta_end", 1.5}}, "betas");
  expect(ErrorCode::bad_format, {{"trained_betas", {0.1, 0.2}}}, "trained_betas");
  expect(ErrorCode::bad_format, {{"steps_offset", -1}}, "steps_offset");
  expect(ErrorCode::bad_format, {{"steps_offset", "1"}}, "steps_offset");
}

TEST(SamplingSteps, StepsDescendToTheEndForEverySampler) {
  for (const SamplerEntry& entry : sampler_table())
    for (const bool zero_snr : {false, true})
      for (const std::int64_t steps : {1, 2, 20, 50}) {
        const SamplingSteps path =
            SamplerChoice{&entry}.steps(process_of(config_of(zero_snr)), steps);
        const std::int64_t extra = entry.grid == Grid::pndm && steps > 1 ? 1 : 0;
        ASSERT_EQ(static_cast<std::int64_t>(path.steps.size()), steps + extra) << entry.name;
        for (const SamplingStep& step : path.steps) {
          ASSERT_LT(step.to.sigma, step.from.sigma) << entry.name << " " << steps;
          ASSERT_GE(step.from.timestep, 0.0);
          ASSERT_LE(step.from.timestep, 999.0);
        }
      }
}

TEST(SamplingSteps, TheNumberOfStepsIsChecked) {
  const auto schedule = process_of(config_of());
  for (const SamplerEntry& entry : sampler_table()) {
    const SamplerChoice choice{&entry};
    for (const std::int64_t steps : {std::int64_t{0}, std::int64_t{-5}, std::int64_t{1001},
                                     std::numeric_limits<std::int64_t>::max()})
      expect_error(ErrorCode::invalid_argument, "steps: ", [&] { choice.steps(schedule, steps); });
  }
  expect_error(ErrorCode::invalid_argument, "LCM needs 1 to 8 steps",
               [&] { find_sampler("lcm").steps(schedule, 51); });
}

TEST(SamplingSteps, ZeroTerminalSnrIsSampledFromTheLastLevel) {
  for (const SamplerEntry& entry : sampler_table()) {
    if (entry.grid == Grid::lcm) continue;
    const SamplerChoice choice{&entry};
    EXPECT_EQ(choice.steps(process_of(config_of(true)), 7).steps.front().from.timestep, 999.0);
    ScheduleConfig leading = config_of(true);  // what a configuration says stays
    leading.spacing = Spacing::leading;
    EXPECT_LT(choice.steps(process_of(leading), 7).steps.front().from.timestep, 999.0);
  }
}

TEST(SamplingSteps, AChosenSpacingTakesThePlaceOfTheModels) {
  ScheduleConfig config = config_of();
  config.spacing = Spacing::leading;
  for (const SamplerEntry& entry : sampler_table()) {
    SamplerChoice choice{&entry};
    const std::string own = choice.name();
    for (const Spacing spacing : {Spacing::leading, Spacing::trailing, Spacing::linspace}) {
      choice.spacing = spacing;
      if (entry.grid == Grid::lcm) {
        expect_error(ErrorCode::invalid_argument,
                     "spacing: ", [&] { choice.steps(process_of(config), 7); });
        continue;
      }
      ScheduleConfig said = config;
      said.spacing = spacing;
      const SamplingSteps path = choice.steps(process_of(config), 7);
      const SamplingSteps want = SamplerChoice{&entry}.steps(process_of(said), 7);
      ASSERT_EQ(path.steps.size(), want.steps.size());
      for (std::size_t i = 0; i < want.steps.size(); ++i)
        EXPECT_EQ(path.steps[i].from.timestep, want.steps[i].from.timestep) << entry.name << i;
      EXPECT_EQ(path.initial_sigma, want.initial_sigma);
      EXPECT_EQ(choice.name(), own);
    }
  }
}

TEST(SamplingSteps, ImageToImageStartsByStrength) {
  const Schedule ddpm(config_of());
  EXPECT_EQ(start_for_strength(ddpm, 30, 1.0), 0u);
  EXPECT_EQ(start_for_strength(ddpm, 30, 0.8), 6u);
  EXPECT_EQ(start_for_strength(ddpm, 30, 0.5), 15u);
  EXPECT_EQ(start_for_strength(ddpm, 5, 0.5), 3u);
  EXPECT_EQ(start_for_strength(ddpm, 1, 1.0), 0u);
  for (const double strength : {0.0, -0.1, 1.01, std::nan(""), 1e300})
    expect_error(ErrorCode::invalid_argument, "above 0 and up to 1",
                 [&] { start_for_strength(ddpm, 30, strength); });
  expect_error(ErrorCode::invalid_argument, "no step of 10",
               [&] { start_for_strength(ddpm, 10, 0.05); });
  const RectifiedFlow flow{RectifiedFlowConfig()};  // as its pipelines round
  EXPECT_EQ(start_for_strength(flow, 5, 0.5), 2u);
  EXPECT_EQ(start_for_strength(flow, 10, 0.05), 9u);
  EXPECT_EQ(start_for_strength(flow, 30, 1.0), 0u);
}

class EverySampler : public testing::TestWithParam<SamplerChoice> {
 protected:
  SamplingSteps path(std::int64_t steps) const {
    return GetParam().steps(process_of(config_of()), steps);
  }
  at::Tensor run(const SamplingSteps& walked, const StepCallback& callback) const {
    return GetParam().entry->sample(network, 1.7 * uniform("start", kShape), walked, draw,
                                    callback);
  }
};

TEST_P(EverySampler, ReportsEveryStepOnce) {
  for (const std::int64_t steps : {1, 2, 7}) {
    const SamplingSteps whole = path(steps);
    std::vector<std::size_t> seen;
    at::Tensor last;
    const at::Tensor result = run(whole, [&](const SamplerStep& report) {
      seen.push_back(report.step);
      EXPECT_EQ(report.count, whole.steps.size());
      last = report.latents;
      return true;
    });
    ASSERT_EQ(seen.size(), whole.steps.size());
    for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], i + 1);
    EXPECT_TRUE(last.equal(result));  // the last preview is the result
    EXPECT_TRUE(result.isfinite().all().item<bool>());
  }
}

TEST_P(EverySampler, LooksNeitherAtTheCallbackNorAtHowOftenItRan) {
  EXPECT_TRUE(run(path(5), {}).equal(run(path(5), [](const SamplerStep&) { return true; })));
}

TEST_P(EverySampler, StopsWhenTheCallbackSaysSo) {
  for (const std::size_t stop_after : {std::size_t{1}, std::size_t{3}}) {
    std::size_t calls = 0;
    expect_error(ErrorCode::cancelled, "stopped after step " + std::to_string(stop_after),
                 [&] { run(path(5), [&](const SamplerStep&) { return ++calls < stop_after; }); });
    EXPECT_EQ(calls, stop_after);
  }
}

TEST_P(EverySampler, StartsInTheMiddleForImageToImage) {
  SamplingSteps late = path(8);
  late.start = start_for_strength(*late.process, 8, 0.5);
  std::vector<std::size_t> seen;
  std::vector<double> asked;
  const Denoiser denoiser = [&](const at::Tensor& x, const NoiseLevel& level) {
    asked.push_back(level.sigma);
    return network(x, level);
  };
  const at::Tensor x = add_noise(uniform("p", kShape), draw(9), late.steps[late.start].from);
  GetParam().entry->sample(denoiser, x, late, draw, [&](const SamplerStep& report) {
    seen.push_back(report.step);
    return true;
  });
  EXPECT_EQ(seen.size(), late.steps.size() - late.start);
  EXPECT_EQ(seen.front(), late.start + 1);
  // The network is never asked about more noise than the picture was given.
  EXPECT_LE(*std::ranges::max_element(asked), late.steps[late.start].from.sigma + 1e-12);
}

TEST_P(EverySampler, ReturnsANewTensor) {
  const at::Tensor x = uniform("start", kShape), copy = x.clone();
  GetParam().entry->sample(network, x, path(3), draw, {});
  EXPECT_TRUE(x.equal(copy));  // the caller's noise is not overwritten
}

std::vector<SamplerChoice> all_samplers() {
  std::vector<SamplerChoice> choices;
  for (const SamplerEntry& entry : sampler_table()) {
    choices.push_back({&entry, false});
    if (entry.takes_karras()) choices.push_back({&entry, true});
  }
  return choices;
}

INSTANTIATE_TEST_SUITE_P(Table, EverySampler, testing::ValuesIn(all_samplers()),
                         [](const auto& entry) {
                           std::string name = entry.param.name();
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace ringlet::diffusion
