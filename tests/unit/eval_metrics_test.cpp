// Metrics on cases that are worked out by hand; numbers of the published implementations are in
// tests/golden/metrics_golden_test.cpp.
#include <cmath>
#include <limits>

#include <ATen/ops/eye.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "ringlet/core/random.h"
#include "ringlet/eval/control_metrics.h"
#include "ringlet/eval/feature_metrics.h"
#include "ringlet/eval/statistics.h"
#include "tests/expect_error.h"
#include "tests/tiny_training.h"

namespace ringlet::eval {
namespace {

io::Image plain(std::int64_t side, std::uint8_t grey) {
  return {side, side, std::vector<std::uint8_t>(static_cast<std::size_t>(side * side * 3), grey)};
}

TEST(EdgeAgreement, IsOneForTheSamePictureAndBetweenForOthers) {
  const io::Image a = train::waves(0), b = train::waves(3);
  EXPECT_EQ(edge_agreement(a, a, {10, 20}).iou, 1.0);
  EXPECT_EQ(edge_agreement(a, a, {10, 20}).f1, 1.0);
  const EdgeAgreement other = edge_agreement(a, b, {10, 20});
  EXPECT_GE(other.iou, 0.0);
  EXPECT_LT(other.iou, 0.9);
  EXPECT_NEAR(other.f1, 2.0 * other.iou / (1.0 + other.iou), 1e-12);
}

TEST(EdgeAgreement, HasItsSayOnEmptyPictures) {
  EXPECT_EQ(edge_agreement(plain(16, 0), plain(16, 255)).iou, 1.0);  // neither has an edge
  EXPECT_EQ(edge_agreement(train::waves(0), plain(32, 0), {10, 20}).f1, 0.0);
  expect_error(ErrorCode::mismatch, "16x16 and 32x32",
               [&] { edge_agreement(plain(16, 0), plain(32, 0)); });
}

TEST(ConfusionScores, AreThoseOfAHandMadeCase) {
  Confusion confusion(4);
  // Class 3 occurs nowhere, one true pixel is ignored.
  confusion.add({3, 2, {0, 0, 1, 1, 2, 255}}, {3, 2, {0, 1, 1, 1, 0, 2}});
  const Confusion::Scores scores = confusion.scores();
  EXPECT_NEAR(scores.mean_iou, (1.0 / 3.0 + 2.0 / 3.0 + 0.0) / 3.0, 1e-12);
  EXPECT_NEAR(scores.mean_accuracy, (0.5 + 1.0 + 0.0) / 3.0, 1e-12);
  EXPECT_NEAR(scores.pixel_accuracy, 3.0 / 5.0, 1e-12);
  expect_error(ErrorCode::invalid_argument, "label 7", [&] {
    confusion.add({1, 1, {7}}, {1, 1, {0}});
  });
  expect_error(ErrorCode::mismatch, "sizes", [&] { confusion.add({1, 1, {0}}, {2, 1, {0, 0}}); });
  expect_error(ErrorCode::invalid_argument, "no pixel", [] {
    Confusion empty(2);
    empty.add({1, 1, {255}}, {1, 1, {0}});
    empty.scores();
  });
}

TEST(LandmarkError, IsTheMeanDistance) {
  const std::vector<data::Point> truth = {{0, 0}, {10, 10}}, found = {{3, 4}, {10, 10}};
  EXPECT_DOUBLE_EQ(landmark_error(truth, found), 2.5);
  expect_error(ErrorCode::mismatch, "1 points", [&] { landmark_error(truth, {truth.data(), 1}); });
  expect_error(ErrorCode::invalid_argument, "no points", [] { landmark_error({}, {}); });
}

TEST(FeatureMetrics, OfSimpleVectors) {
  const at::Tensor axes = at::eye(3, at::kDouble);
  EXPECT_NEAR(cosines(2.0 * axes, axes).mean().item<double>(), 1.0 / 3.0, 1e-12);
  EXPECT_NEAR(paired_cosines(axes, 5.0 * axes).mean().item<double>(), 1.0, 1e-12);
  EXPECT_NEAR(mean_pairwise_distance(axes), 1.0, 1e-12);
  EXPECT_NEAR(mean_pairwise_distance(at::ones({4, 3})), 0.0, 1e-12);
  EXPECT_NEAR(vendi_score(axes), 3.0, 1e-9);
  EXPECT_NEAR(vendi_score(at::ones({4, 3})), 1.0, 1e-9);
  const at::Tensor x = golden::uniform("x", {40, 5});
  EXPECT_NEAR(frechet_distance(x, x), 0.0, 1e-9);
  EXPECT_NEAR(frechet_distance(x, x + 2.0), 5 * 4.0, 1e-5);
  EXPECT_NEAR(clip_mean_discrepancy(x, x), 0.0, 1e-9);
  EXPECT_GT(kernel_distance(x, x + 2.0), 1.0);
  EXPECT_EQ(kernel_distance(x, x + 2.0, {.subset_size = 10, .seed = 3}),
            kernel_distance(x, x + 2.0, {.subset_size = 10, .seed = 3}));
}

TEST(FeatureMetrics, RefuseWhatCannotBe) {
  const at::Tensor x = at::ones({4, 3});
  expect_error(ErrorCode::non_finite, "zero or not finite", [] { unit_rows(at::zeros({2, 3})); });
  expect_error(ErrorCode::mismatch, "widths 3 and 2", [&] { cosines(x, at::ones({4, 2})); });
  expect_error(ErrorCode::mismatch, "do not make pairs", [&] {
    paired_cosines(x, at::ones({3, 3}));
  });
  const at::Tensor broken = at::ones({4, 3}) / 0.0;
  expect_error(ErrorCode::non_finite, "not finite", [&] { frechet_distance(x, broken); });
  expect_error(ErrorCode::non_finite, "not finite", [&] { kernel_distance(broken, x); });
  expect_error(ErrorCode::invalid_argument, "at least 2 pictures", [] {
    frechet_distance(at::ones({1, 3}), at::ones({4, 3}));
  });
}

std::vector<Sample> numbers(const std::vector<double>& values, double shift = 0.0) {
  std::vector<Sample> samples;
  for (std::size_t i = 0; i < values.size(); ++i)
    samples.push_back({"s" + std::to_string(i), "u" + std::to_string(i / 2), values[i] + shift});
  return samples;
}

TEST(Bootstrap, WeighsUnitsAlikeAndHoldsTheMean) {
  const std::vector<Sample> samples = {{"a", "dog", 1.0}, {"b", "dog", 1.0}, {"c", "cat", 4.0}};
  const Interval interval = bootstrap_mean(samples);
  EXPECT_DOUBLE_EQ(interval.mean, 2.5);
  EXPECT_EQ(interval.units, 2u);
  EXPECT_EQ(interval.samples, 3u);
  EXPECT_DOUBLE_EQ(interval.low, 1.0);
  EXPECT_DOUBLE_EQ(interval.high, 4.0);
  const Interval alone = bootstrap_mean({{"a", "dog", 1.0}, {"b", "dog", 3.0}});
  EXPECT_DOUBLE_EQ(alone.low, 2.0);
  EXPECT_DOUBLE_EQ(alone.high, 2.0);
}

// For a mean of many independent numbers the interval is that of the normal distribution.
TEST(Bootstrap, IsTheNormalIntervalForManyNumbers) {
  std::vector<Sample> samples;
  RandomStream draw = Random(7).stream("numbers");
  constexpr int kCount = 400;
  for (int i = 0; i < kCount; ++i)
    samples.push_back({std::to_string(i), std::to_string(i), draw.normal()});
  const Interval interval = bootstrap_mean(samples, {.resamples = 4000});
  const double half = 1.96 / std::sqrt(static_cast<double>(kCount));
  EXPECT_NEAR(interval.high - interval.low, 2.0 * half, 0.2 * half);
  const Interval again = bootstrap_mean(samples, {.resamples = 4000});
  EXPECT_EQ(interval.low, again.low);
}

// One number of each run: Student's interval, with t = 4.303 for 97.5 % at two degrees of freedom.
TEST(Bootstrap, OfAFewRunsIsStudentsInterval) {
  const std::vector<Sample> samples = {
      {"a", "loss", 1.0, "1"}, {"b", "loss", 2.0, "2"}, {"c", "loss", 4.0, "3"}};
  const Interval interval = bootstrap_mean(samples, {.resamples = 20000});
  const double mean = 7.0 / 3.0;
  const double deviation = std::sqrt(
      ((1 - mean) * (1 - mean) + (2 - mean) * (2 - mean) + (4 - mean) * (4 - mean)) / 2.0);
  const double half = 4.303 * deviation / std::sqrt(3.0);
  EXPECT_DOUBLE_EQ(interval.mean, mean);
  EXPECT_NEAR(interval.low, mean - half, 0.1 * half);
  EXPECT_NEAR(interval.high, mean + half, 0.1 * half);
  EXPECT_EQ(interval.runs, 3u);
}

// Three runs over the same units: 95 % intervals hold the true mean in about 95 of 100 cases.
TEST(Bootstrap, HoldsTheMeanAsOftenAsItSays) {
  constexpr int kTrials = 300, kUnits = 24, kRuns = 3;
  int held = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    RandomStream draw = Random(3).stream("trial", static_cast<std::uint64_t>(trial));
    std::vector<double> runs(kRuns);
    for (double& run : runs) run = 0.5 * draw.normal();
    std::vector<Sample> samples;
    for (int unit = 0; unit < kUnits; ++unit) {
      const double of_unit = draw.normal();
      for (int run = 0; run < kRuns; ++run)
        samples.push_back({std::to_string(unit) + "/" + std::to_string(run), std::to_string(unit),
                           of_unit + runs[static_cast<std::size_t>(run)] + 0.5 * draw.normal(),
                           std::to_string(run)});
    }
    const Interval interval = bootstrap_mean(samples, {.resamples = 400});
    held += interval.low <= 0.0 && interval.high >= 0.0;
  }
  EXPECT_GE(held, kTrials * 92 / 100);
  EXPECT_LE(held, kTrials * 98 / 100);
}

TEST(PairedDifference, IsNarrowWhereRunsDifferByAConstant) {
  const std::vector<double> values = {1, 5, 2, 9, 4, 3};
  const PairedDifference difference = paired_difference(numbers(values, 0.5), numbers(values));
  EXPECT_DOUBLE_EQ(difference.interval.mean, 0.5);
  EXPECT_DOUBLE_EQ(difference.interval.low, 0.5);
  EXPECT_DOUBLE_EQ(difference.positive, 1.0);
  EXPECT_DOUBLE_EQ(paired_difference(numbers(values), numbers(values, 0.5)).positive, 0.0);
  expect_error(ErrorCode::mismatch, "only the first", [&] {
    paired_difference(numbers(values), numbers({1, 5}));
  });
  expect_error(ErrorCode::mismatch, "only the second", [&] {
    paired_difference(numbers({1, 5}), numbers(values));
  });
}

TEST(Bootstrap, RefusesWhatIsNoNumber) {
  expect_error(ErrorCode::non_finite, "s0", [] {
    bootstrap_mean({{"s0", "s0", std::numeric_limits<double>::quiet_NaN()}});
  });
  expect_error(ErrorCode::invalid_argument, "no samples", [] { bootstrap_mean({}); });
}

}  // namespace
}  // namespace ringlet::eval
