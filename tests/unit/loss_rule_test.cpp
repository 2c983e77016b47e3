// Losses and noise of training as published: each value is the formula's, computed by hand.
#include "ringlet/diffusion/loss_rule.h"

#include <array>
#include <cmath>
#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/diffusion/multiresolution_noise.h"
#include "ringlet/diffusion/rectified_flow.h"
#include "ringlet/diffusion/schedule.h"
#include "tests/expect_error.h"
#include "tests/golden/formula.h"

namespace ringlet::diffusion {
namespace {

/// A variance-preserving level of this signal-to-noise ratio.
NoiseLevel level_of_snr(double snr) {
  return {std::sqrt(snr / (1.0 + snr)), std::sqrt(1.0 / (1.0 + snr)), 10.0};
}

TEST(LossRule, DebiasedWeightsAreKohyas) {
  struct Case {
    double snr, epsilon, v;
  };
  for (const auto& [snr, epsilon, v] : {Case{4.0, 0.5, 0.2},
                                        {0.25, 2.0, 0.8},
                                        {100.0, 0.1, 1 / 101.0},
                                        {1e6, 1 / std::sqrt(1000.0), 1 / 1001.0}}) {
    EXPECT_NEAR(debiased_weight(Prediction::epsilon, level_of_snr(snr)), epsilon, 1e-12);
    EXPECT_NEAR(debiased_weight(Prediction::v, level_of_snr(snr)), v, 1e-12);
  }
  // At the ends of a process all weights are finite.
  for (const NoiseLevel& end : {NoiseLevel{0.0, 1.0, 999.0}, NoiseLevel{1.0, 0.0, 0.0}})
    for (const Prediction prediction :
         {Prediction::epsilon, Prediction::v, Prediction::sample, Prediction::flow}) {
      EXPECT_TRUE(std::isfinite(debiased_weight(prediction, end)));
      EXPECT_TRUE(std::isfinite(p2_weight(prediction, end, 1.0)));
    }
}

TEST(LossRule, P2WeightsAreThePapers) {
  EXPECT_NEAR(p2_weight(Prediction::epsilon, level_of_snr(3.0), 1.0), 0.25, 1e-12);
  EXPECT_NEAR(p2_weight(Prediction::epsilon, level_of_snr(3.0), 0.5), 0.5, 1e-12);
  EXPECT_NEAR(p2_weight(Prediction::epsilon, level_of_snr(0.25), 2.0), 0.64, 1e-12);
  // The error of v is that of epsilon over alpha.
  EXPECT_NEAR(p2_weight(Prediction::v, level_of_snr(3.0), 1.0), 0.25 * 0.75, 1e-12);
}

TEST(LossRule, AllWeightsAreFactors) {
  const Schedule process{ScheduleConfig()};
  const NoiseLevel level = process.level(400);
  const double snr = level.alpha * level.alpha / (level.sigma * level.sigma);
  EXPECT_EQ(level_weight(process, level, {}), 1.0);
  const double min_snr = std::min(snr, 0.1) / snr;
  EXPECT_NEAR(level_weight(process, level, {.min_snr_gamma = 0.1}), min_snr, 1e-12);
  EXPECT_NEAR(
      level_weight(process, level, {.min_snr_gamma = 0.1, .p2_gamma = 1.0, .debiased = true}),
      min_snr / (1.0 + snr) / std::sqrt(snr), 1e-12);
}

TEST(LossRule, WidthsFollowTheSchedules) {
  const Schedule process{ScheduleConfig()};
  const auto width = [&](HuberSchedule schedule, const NoiseLevel& level) {
    return huber_width(process, level, {.huber_schedule = schedule, .huber_c = 0.1});
  };
  EXPECT_EQ(width(HuberSchedule::constant, process.level(3)), 0.1);
  EXPECT_EQ(width(HuberSchedule::exponential, process.level(0)), 1.0);
  // exp(t log(0.1) / 1000)
  EXPECT_NEAR(width(HuberSchedule::exponential, process.level(500)), std::sqrt(0.1), 1e-12);
  EXPECT_NEAR(width(HuberSchedule::snr, level_of_snr(1.0)), 0.9 / 4.0 + 0.1, 1e-12);
  EXPECT_NEAR(width(HuberSchedule::snr, level_of_snr(0.25)), 0.9 / 9.0 + 0.1, 1e-12);
  EXPECT_EQ(width(HuberSchedule::snr, {0.0, 1.0, 999.0}), 0.1);
  const RectifiedFlow flow{RectifiedFlowConfig()};
  EXPECT_NEAR(huber_width(flow, flow.level_at(1.0),
                          {.huber_schedule = HuberSchedule::exponential, .huber_c = 0.2}),
              0.2, 1e-12);
}

TEST(LossRule, LossesGrowAsTheyShould) {
  const at::Tensor difference = at::tensor({0.0, 0.4, -3.0}, at::kDouble);
  const at::Tensor width = at::tensor({0.3}, at::kDouble);
  const auto expect = [&](LossKind kind, std::array<double, 3> values) {
    const at::Tensor loss = loss_of(kind, difference, width);
    for (std::int64_t i = 0; i < 3; ++i)
      EXPECT_NEAR(loss[i].item<double>(), values[static_cast<std::size_t>(i)], 1e-12);
  };
  expect(LossKind::l2, {0.0, 0.16, 9.0});
  const double far = std::sqrt(9.09) - 0.3;
  expect(LossKind::smooth_l1, {0.0, 0.4, 2.0 * far});
  expect(LossKind::huber, {0.0, 0.12, 0.6 * far});
}

TEST(TrainingTimes, OfDdpmHaveADensityAndARange) {
  const Schedule process{ScheduleConfig()};
  TrainingTimes times;
  times.least = 0.2;
  times.most = 0.4;
  const auto part = process.with_times(times);
  RandomStream random = Random(1).stream("times"), same = Random(1).stream("times");
  std::set<double> seen;
  for (int i = 0; i < 3000; ++i) {
    const double timestep = part->draw_level(random, {}).timestep;
    EXPECT_EQ(timestep, std::floor((0.2 + 0.2 * same.uniform()) * 1000.0));
    seen.insert(timestep);
  }
  EXPECT_EQ(*seen.begin(), 200.0);
  EXPECT_EQ(*seen.rbegin(), 399.0);
  EXPECT_EQ(seen.size(), 200u);
  times = {};
  times.distribution = TimeDistribution::logit_normal;
  times.mean = 1.0;
  const auto noisy = process.with_times(times);
  double sum = 0.0;
  for (int i = 0; i < 1000; ++i) sum += noisy->draw_level(random, {}).timestep;
  EXPECT_NEAR(sum / 1000.0, 696.0, 30.0);  // the mean of sigmoid(1 + normal) is 0.697
  times.mode_scale = 1.0;
  expect_error(ErrorCode::invalid_argument, "mode_scale", [&] { process.with_times(times); });
  times = {};
  times.least = times.most = 0.5;
  expect_error(ErrorCode::invalid_argument, "min_time", [&] { process.with_times(times); });
  times = {};
  times.shift = 3.0;
  expect_error(ErrorCode::invalid_argument, "rectified flow", [&] { process.with_times(times); });
}

TEST(MultiresolutionNoise, AddsCoarserLayersAndHasUnitDeviation) {
  RandomStream ratios = Random(4).stream("ratios"), same = Random(4).stream("ratios");
  const std::vector<LayerSize> sizes = layer_sizes({64, 48}, 6, ratios);
  ASSERT_GE(sizes.size(), 2u);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const double by = std::pow(2.0 + 2.0 * same.uniform(), static_cast<double>(i));
    EXPECT_EQ(sizes[i].height, std::max<std::int64_t>(1, static_cast<std::int64_t>(64.0 / by)));
    EXPECT_EQ(sizes[i].width, std::max<std::int64_t>(1, static_cast<std::int64_t>(48.0 / by)));
  }
  EXPECT_EQ(sizes[0].height, 64);
  EXPECT_TRUE(sizes.size() == 6 || sizes.back().width == 1);

  const at::Tensor noise = golden::uniform("noise", {2, 4, 4});
  const std::array layers = {golden::uniform("a", {2, 4, 4}), golden::uniform("b", {2, 1, 1})};
  const at::Tensor mixed = multiresolution_noise(noise, layers, 0.3);
  const at::Tensor sum = noise + layers[0] + 0.3 * layers[1].expand({2, 4, 4});
  EXPECT_TRUE(at::allclose(mixed, sum / sum.std(), 1e-5, 1e-6));
  EXPECT_NEAR(mixed.std().item<double>(), 1.0, 1e-5);
}

}  // namespace
}  // namespace ringlet::diffusion
