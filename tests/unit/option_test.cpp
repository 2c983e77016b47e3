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
               "learning_rate_schedule: \"sine\" is not known\n  did you mean \"cosine\"? use "
               "constant or cosine",
               [&] { value.read({"sine"}); });
}

// A word that C++ has set is checked as well, and one that nobody has set is none.
TEST(Option, WordsAreCheckedWhereverTheyComeFrom) {
  EXPECT_EQ(one_of({"a"}), "a");
  EXPECT_EQ(one_of({"a", "b", "c"}), "a, b or c");

  constexpr std::array<std::pair<const char*, bool>, 3> kCrops = {
      {{"centre", false}, {"center", false}, {"random", true}}};
  bool random = true;
  std::optional<Decay> decay;
  std::string device = "cpu";
  OptionList list;
  list.add("crop", choice("crop", random, kCrops), "");
  list.add("schedule", choice("schedule", decay, kNames), "");
  list.add("device", word_choice("device", device, {"cpu", "cuda"}), "");
  EXPECT_EQ(list.values(), (Json{{"crop", "random"}, {"schedule", nullptr}, {"device", "cpu"}}));
  const auto read = [&](const char* field, const char* word) {
    std::get<WrittenValue>(list.at(field).target).read({word});
  };
  read("crop", "center");
  read("schedule", "cosine");
  read("device", "cuda");
  EXPECT_EQ(list.values(), (Json{{"crop", "centre"}, {"schedule", "cosine"}, {"device", "cuda"}}));
  EXPECT_EQ(std::get<WrittenValue>(list.at("crop").target).words,
            (std::vector<std::string>{"centre", "random"}));
  read("schedule", "");
  EXPECT_FALSE(decay);
  expect_error(ErrorCode::invalid_argument,
               "crop: \"randon\" is not known\n  did you mean \"random\"? use centre or random",
               [&] { read("crop", "randon"); });
  list.check();
  device = "tpu";
  expect_error(ErrorCode::invalid_argument, "device: \"tpu\" is not known", [&] { list.check(); });
  decay = static_cast<Decay>(7);  // of the type, but without a name
  expect_error(ErrorCode::invalid_argument,
               "schedule: the value is not supported here\n  use constant or cosine",
               [&] { list.check(); });
}

}  // namespace
}  // namespace ringlet
