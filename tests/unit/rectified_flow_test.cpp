// What a scheduler_config.json of flow matching means, and which levels are trained.
#include "ringlet/diffusion/rectified_flow.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "ringlet/core/random.h"
#include "ringlet/diffusion/sampler_table.h"
#include "ringlet/diffusion/schedule.h"
#include "tests/expect_error.h"

namespace ringlet::diffusion {
namespace {

Json flow_json(const Json& fields = Json::object()) {
  Json json = {{"_class_name", "FlowMatchEulerDiscreteScheduler"}};
  json.update(fields);
  return json;
}

TEST(OpenNoiseProcess, TheClassNameChooses) {
  const auto opened = [](const Json& json) { return open_noise_process(json, "scheduler"); };
  const auto sampler = [&](const Json& json) { return default_sampler(*opened(json)).name(); };
  EXPECT_EQ(opened(flow_json())->prediction(), Prediction::flow);
  EXPECT_EQ(sampler(flow_json()), "euler");
  EXPECT_EQ(sampler(flow_json({{"use_karras_sigmas", true}})), "euler-karras");
  EXPECT_EQ(sampler({{"_class_name", "FlowMatchHeunDiscreteScheduler"}}), "heun");
  Json solver = {{"_class_name", "DPMSolverMultistepScheduler"},
                 {"use_flow_sigmas", true},
                 {"prediction_type", "flow_prediction"},
                 {"flow_shift", 3.0}};
  EXPECT_EQ(sampler(solver), "dpmpp-2m");
  EXPECT_EQ(RectifiedFlowConfig::from_json(solver, "scheduler").shift, 3.0);
  solver["algorithm_type"] = "sde-dpmsolver++";
  EXPECT_EQ(sampler(solver), "dpmpp-2m-sde");
  solver["use_flow_sigmas"] = false;  // DDPM's, which predicts no flow
  expect_error(ErrorCode::unsupported, "flow_prediction", [&] { opened(solver); });
  EXPECT_EQ(opened({{"_class_name", "DDIMScheduler"}})->name(), "DDPM");
}

TEST(RectifiedFlow, FieldsThatWouldChangeTheResultAreRefused) {
  const auto expect = [](ErrorCode code, const Json& fields, const char* words) {
    expect_error(code, words, [&] { open_noise_process(flow_json(fields), "scheduler"); });
  };
  for (const char* field : {"invert_sigmas", "stochastic_sampling", "use_beta_sigmas"})
    expect(ErrorCode::unsupported, {{field, true}}, field);
  expect(ErrorCode::unsupported, {{"time_shift_type", "cubic"}}, "cubic");
  expect(ErrorCode::unsupported, {{"prediction_type", "epsilon"}}, "prediction_type");
  expect(ErrorCode::bad_format, {{"num_train_timesteps", 1}}, "num_train_timesteps");
  expect(ErrorCode::bad_format, {{"shift", 0.0}}, "shift");
  expect(ErrorCode::bad_format, {{"shift", "3"}}, "shift");
  expect(ErrorCode::bad_format, {{"max_image_seq_len", 256}}, "max_image_seq_len");
  expect(ErrorCode::bad_format, {{"shift_terminal", 1.0}}, "shift_terminal");
}

TEST(RectifiedFlow, TheShiftFollowsThePicturesSize) {
  RectifiedFlowConfig config;
  config.dynamic_shift = true;
  const RectifiedFlow by_size(config);
  EXPECT_NEAR(by_size.shift({256, 256}), std::exp(0.5), 1e-12);
  EXPECT_NEAR(by_size.shift({1024, 1024}), std::exp(1.15), 1e-12);
  EXPECT_EQ(by_size.shift({512, 2048}), by_size.shift({1024, 1024}));
  for (const PictureSize none : {PictureSize{}, PictureSize{1024, 15}})
    expect_error(ErrorCode::invalid_argument, "depend on the picture's size",
                 [&] { by_size.shift(none); });
  config.dynamic_shift = false;
  config.shift = 3.0;
  EXPECT_EQ(RectifiedFlow(config).shift({}), 3.0);
}

/// Shares of drawn sigmas below some bounds, ascending.
std::vector<double> shares(const NoiseProcess& process, PictureSize size,
                           const std::vector<double>& bounds) {
  constexpr int kDraws = 20000;
  std::vector<double> below(bounds.size());
  RandomStream random = Random(7).stream("timestep");
  for (int i = 0; i < kDraws; ++i) {
    const NoiseLevel level = process.draw_level(random, size);
    EXPECT_EQ(level.alpha, 1.0 - level.sigma);
    EXPECT_EQ(level.timestep, 1000.0 * level.sigma);
    for (std::size_t b = 0; b < bounds.size(); ++b)
      below[b] += level.sigma < bounds[b] ? 1.0 / kDraws : 0.0;
  }
  return below;
}

TEST(RectifiedFlow, TrainingLevelsFollowTheDistribution) {
  constexpr double kTolerance = 0.015;  // four deviations of a share
  RectifiedFlowConfig config;
  const auto expect = [&](const std::vector<double>& bounds, const std::vector<double>& want) {
    const auto found = shares(RectifiedFlow(config), {1024, 1024}, bounds);
    for (std::size_t i = 0; i < want.size(); ++i)
      EXPECT_NEAR(found[i], want[i], kTolerance) << bounds[i];
  };
  const auto normal = [](double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); };
  const auto logit = [](double p) { return std::log(p / (1.0 - p)); };
  expect({0.25, 0.5, 0.9}, {normal(logit(0.25)), 0.5, normal(logit(0.9))});
  config.times.mean = 0.5;
  config.times.deviation = 0.7;
  expect({0.25, 0.5}, {normal((logit(0.25) - 0.5) / 0.7), normal(-0.5 / 0.7)});
  config = {.times = {.distribution = TimeDistribution::uniform}};
  expect({0.25, 0.5, 0.9}, {0.25, 0.5, 0.9});
  config.shift = 3.0;  // 3 t / (1 + 2 t) < s means t < s / (3 - 2 s)
  expect({0.25, 0.5, 0.9}, {0.1, 0.25, 0.75});
  config.dynamic_shift = true;
  const double shift = std::exp(1.15);
  expect({0.5}, {0.5 / (shift - (shift - 1.0) * 0.5)});
  // The mode distribution maps uniform 1/2 + d to 1/2 - (1 + s) d + s/2 sin(pi d).
  config = {.times = {.distribution = TimeDistribution::mode}};
  constexpr double kScale = 1.29, kAside = 0.15;
  const double bound =
      0.5 - (1.0 + kScale) * kAside + kScale / 2.0 * std::sin(std::acos(-1.0) * kAside);
  expect({bound, 0.5, 1.0 - bound}, {0.5 - kAside, 0.5, 0.5 + kAside});
  // The integral of cosmap's density up to t is 2 / pi atan(t / (1 - t)).
  config = {.times = {.distribution = TimeDistribution::cosmap}};
  const auto integral = [](double t) { return 2.0 / std::acos(-1.0) * std::atan(t / (1.0 - t)); };
  expect({0.2, 0.5, 0.7}, {integral(0.2), 0.5, integral(0.7)});
}

TEST(RectifiedFlow, LossesAreWeightedByTheLevel) {
  RectifiedFlowConfig config;
  const auto weight = [&](double time, double gamma) {
    const RectifiedFlow process(config);
    return process.loss_weight(process.level_at(time), gamma);
  };
  EXPECT_EQ(weight(0.5, 0.0), 1.0);
  const double min_snr = weight(0.25, 5.0);
  config.weighting = SigmaWeighting::sigma_sqrt;
  EXPECT_EQ(weight(0.25, 0.0), 16.0);
  EXPECT_EQ(weight(0.25, 5.0), 16.0 * min_snr);
  EXPECT_NEAR(weight(0.0, 0.0), 1e6, 1e-6);  // the lowest training level's
  config.weighting = SigmaWeighting::cosmap;
  EXPECT_NEAR(weight(0.5, 0.0), 4.0 / std::acos(-1.0), 1e-12);
}

TEST(Schedule, TrainingLevelsAreWholeTimestepsWithEqualProbability) {
  const Schedule schedule{ScheduleConfig()};
  RandomStream random = Random(3).stream("timestep", 5, 1), same = random;
  for (int i = 0; i < 50; ++i) {
    const auto timestep = static_cast<std::int64_t>(same.uniform_int(1000));
    const NoiseLevel level = schedule.draw_level(random, {});
    EXPECT_EQ(level.timestep, static_cast<double>(timestep));
    EXPECT_EQ(level.alpha, schedule.level(timestep).alpha);
  }
}

}  // namespace
}  // namespace ringlet::diffusion
