#include "ringlet/train/learning_rate.h"

#include <variant>

#include <gtest/gtest.h>

#include "ringlet/train/option_list.h"
#include "tests/expect_error.h"

namespace ringlet::train {
namespace {

TEST(LearningRate, RisesFromZeroAndStays) {
  const LearningRate rate{.peak = 2.0, .decay = Decay::constant, .warmup = 4, .steps = 10};
  const double expected[] = {0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0};
  for (int step = 0; step < 7; ++step) EXPECT_DOUBLE_EQ(rate.at(step), expected[step]) << step;
  EXPECT_DOUBLE_EQ(rate.at(1000), 2.0);
}

TEST(LearningRate, WithoutWarmUpStartsAtThePeak) {
  for (const Decay decay : {Decay::constant, Decay::linear, Decay::cosine})
    EXPECT_DOUBLE_EQ((LearningRate{.peak = 0.3, .decay = decay, .warmup = 0, .steps = 5}.at(0)),
                     0.3);
}

TEST(LearningRate, FallsAlongALine) {
  const LearningRate rate{.peak = 1.0, .decay = Decay::linear, .warmup = 2, .steps = 10};
  const double expected[] = {0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0};
  for (int step = 0; step < 11; ++step) EXPECT_DOUBLE_EQ(rate.at(step), expected[step]) << step;
  EXPECT_DOUBLE_EQ(rate.at(12), 0.0);  // never below
}

TEST(LearningRate, FallsAlongHalfACosine) {
  const LearningRate rate{.peak = 4.0, .decay = Decay::cosine, .warmup = 2, .steps = 10};
  EXPECT_DOUBLE_EQ(rate.at(1), 2.0);
  EXPECT_DOUBLE_EQ(rate.at(2), 4.0);
  EXPECT_NEAR(rate.at(4), 3.414213562373095, 1e-14);  // 2 + sqrt(2)
  EXPECT_NEAR(rate.at(6), 2.0, 1e-14);
  EXPECT_NEAR(rate.at(8), 0.585786437626905, 1e-14);  // 2 - sqrt(2)
  EXPECT_NEAR(rate.at(10), 0.0, 1e-14);
  EXPECT_NEAR(rate.at(99), 0.0, 1e-14);
}

// diffusers' get_cosine_with_hard_restarts_schedule_with_warmup and
// get_polynomial_decay_schedule_with_warmup, and the equation of the REX paper.
TEST(LearningRate, StartsAgainAndFallsAlongOtherCurves) {
  LearningRate rate{.peak = 2.0, .decay = Decay::cosine, .warmup = 2, .steps = 10, .cycles = 2};
  const double restarts[] = {0.0, 1.0,
                             2.0, 1.7071067811865475,
                             1.0, 0.2928932188134525,
                             2.0, 1.7071067811865475,
                             1.0, 0.2928932188134525,
                             0.0};
  for (int step = 0; step < 11; ++step) EXPECT_NEAR(rate.at(step), restarts[step], 1e-14) << step;
  rate = {
      .peak = 1.0, .decay = Decay::polynomial, .warmup = 1, .steps = 5, .power = 2.0, .end = 0.2};
  const double polynomial[] = {0.0, 1.0, 0.65, 0.4, 0.25, 0.2, 0.2};
  for (int step = 0; step < 7; ++step) EXPECT_NEAR(rate.at(step), polynomial[step], 1e-14) << step;
  rate = {.peak = 1.0, .decay = Decay::rex, .steps = 4};
  const double rex[] = {1.0, 6.0 / 7.0, 2.0 / 3.0, 0.4, 0.0};
  for (int step = 0; step < 5; ++step) EXPECT_NEAR(rate.at(step), rex[step], 1e-14) << step;
}

TEST(LearningRate, AWarmUpIsStepsOrAShareOfThem) {
  TrainerOptions options;
  OptionList list;
  describe(list, options);
  const Option& option = list.at("warmup_steps");
  const auto read = [&](const char* text) {
    std::get<WrittenValue>(option.target).read({text});
    options.learning_rate.steps = 50;
    return options.learning_rate.warmup_steps();
  };
  EXPECT_EQ(read("0.1"), 5);
  EXPECT_EQ(option.value(), 0.1);
  EXPECT_EQ(read("7"), 7);
  EXPECT_EQ(option.value(), 7);
  EXPECT_EQ(read("0"), 0);
  expect_error(ErrorCode::invalid_argument, "must not be negative", [&] { read("-1"); });
  expect_error(ErrorCode::invalid_argument, "neither a number of steps", [&] { read("1.5"); });
  options.learning_rate.warmup = -1;
  expect_error(ErrorCode::invalid_argument, "must not be negative", [&] { list.check(); });
  // A share depends on the number of steps, which a resumed run must then repeat.
  TrainerOptions constant;
  EXPECT_FALSE(settings_of(constant).contains("steps"));
  EXPECT_FALSE(settings_of(constant).contains("learning rate cycles"));
  constant.learning_rate.warmup_share = 0.5;
  EXPECT_TRUE(settings_of(constant).contains("steps"));
}

TEST(LearningRate, AWarmUpAsLongAsTheRunOrLongerIsARise) {
  for (const Decay decay : {Decay::constant, Decay::linear, Decay::cosine})
    for (const std::int64_t warmup : {10, 20}) {
      const LearningRate rate{.peak = 1.0, .decay = decay, .warmup = warmup, .steps = 10};
      for (int step = 0; step < 10; ++step)
        EXPECT_DOUBLE_EQ(rate.at(step), step / static_cast<double>(warmup));
    }
}

TEST(LearningRate, CurvesHaveNames) {
  TrainerOptions options;
  OptionList list;
  describe(list, options);
  const Option* const schedule = &list.at("learning_rate_schedule");
  const auto read = [&](const char* name) {
    std::get<WrittenValue>(schedule->target).read({name});
    return options.learning_rate.decay;
  };
  for (const auto& [name, decay] : kDecayNames) {
    EXPECT_EQ(read(name), decay);
    EXPECT_EQ(schedule->value(), name);
    EXPECT_STREQ(decay_name(decay), name);
  }
  expect_error(ErrorCode::invalid_argument, "did you mean \"cosine\"?", [&] { read("cosin"); });
  expect_error(ErrorCode::invalid_argument, "use constant, linear, cosine, polynomial or rex",
               [&] { read("exponential"); });
  expect_error(ErrorCode::invalid_argument, "\"\" is not known", [&] { read(""); });
}

}  // namespace
}  // namespace ringlet::train
