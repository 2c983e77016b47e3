#include "ringlet/core/option.h"

#include <array>
#include <cmath>

#include <gtest/gtest.h>

#include "tests/expect_error.h"

namespace ringlet {
namespace {

enum class Decay { constant, cosine };
constexpr std::array<std::pair<const char*, Decay>, 2> kNames = {
    {{"constant", Decay::constant}, {"cosine", Decay::cosine}}};

TEST(Option, RangesSayWhatTheyTakeAndWhatTheyRefuse) {
  const auto expect = [](Range range, const char* text, const char* refusal) {
    EXPECT_EQ(range.text(), text);
    EXPECT_EQ(range.refusal(), refusal);
    EXPECT_FALSE(range.contains(std::nan("")));
  };
  expect(Range::between(1, 1000), "1 to 1000", "must lie between 1 and 1000");
  expect(Range::share(), "[0, 1)", "must lie in [0, 1)");
  expect(Range::inside(0, 1), "between 0 and 1", "must lie between 0 and 1");
  expect(Range::at_least(0), "at least 0", "must not be negative");
  expect(Range::at_least(1), "at least 1", "must be at least 1");
  expect(Range::above(0), "above 0", "must be larger than 0");
  EXPECT_FALSE(Range::share().contains(1.0));
  EXPECT_TRUE(Range::share().contains(0.0));
  EXPECT_FALSE(Range::above(0).contains(0.0));
  EXPECT_FALSE(Range::above(0).contains(INFINITY));
  EXPECT_TRUE(Range().unlimited());
}

TEST(Option, AListChecksItsNumbersByField) {
  std::int64_t steps = 10;
  std::optional<double> strength;
  OptionList list;
  list.add("steps", steps, "Steps").within(Range::at_least(1));
  list.add("strength", strength, "Of it").within(Range::between(0, 1));
  list.check();
  strength = 1.5;
  expect_error(ErrorCode::invalid_argument, "strength: must lie between 0 and 1",
               [&] { list.check(); });
  steps = 0;
  expect_error(ErrorCode::invalid_argument, "steps: must be at least 1", [&] { list.check(); });
}

// What a checkpoint keeps must not depend on the order of an enumeration.
TEST(Option, SettingsHoldNamesAndOnlyWhatMustBeRepeated) {
  std::int64_t warmup = 5;
  double clip = 1.0;
  std::string out = "x";
  Decay decay = Decay::cosine;
  OptionList list;
  list.add("warmup_steps", warmup, "").repeated("learning rate warm-up");
  list.add("clip_norm", clip, "").repeated();
  list.add("out", out, "");
  list.add("learning_rate_schedule", choice("learning_rate_schedule", decay, kNames), "")
      .repeated("learning rate decay");
  const Json expected = {
      {"clip norm", 1.0}, {"learning rate decay", "cosine"}, {"learning rate warm-up", 5}};
  EXPECT_EQ(list.settings(), expected);
  EXPECT_EQ(list.values().at("out"), "x");
}

TEST(Option, AChoiceListsWhatItKnows) {
  Decay decay = Decay::constant;
  const WrittenValue value = choice("learning_rate_schedule", decay, kNames);
  value.read({"cosine"});
  EXPECT_EQ(decay, Decay::cosine);
  EXPECT_EQ(value.shown(), "cosine");
  expect_error(ErrorCode::invalid_argument,
               "learning_rate_schedule: \"sine\" is not known\n  use constant, cosine",
               [&] { value.read({"sine"}); });
}

}  // namespace
}  // namespace ringlet
