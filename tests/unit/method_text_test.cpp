// Numbers in method texts: what a file may hold travels as text and must come back as it was.
#include "ringlet/adapt/method_text.h"

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method.h"
#include "ringlet/adapt/registry.h"
#include "ringlet/core/random.h"
#include "ringlet/core/text.h"
#include "tests/expect_error.h"

namespace ringlet::adapt {
namespace {

/// Positive finite doubles: of random bits, of every exponent, all of fp16 and bf16, the ends.
std::vector<double> numbers() {
  using Limits = std::numeric_limits<double>;
  std::vector<double> all = {Limits::denorm_min(),
                             Limits::min(),
                             Limits::max(),
                             Limits::epsilon(),
                             std::nextafter(1.0, 2.0),
                             0.1,
                             1.0 / 3.0,
                             1e5,
                             1e-5,
                             1e15,
                             1e16,
                             1e22,
                             1e23,
                             123456789012345680.0,
                             1e100,
                             5e-310};
  std::uint64_t state = 1;
  for (int i = 0; i < 20000; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    const double value = std::bit_cast<double>((state ^ (state >> 29)) & (~0ULL >> 1));
    if (std::isfinite(value) && value > 0.0) all.push_back(value);
  }
  for (int exponent = -1074; exponent <= 1023; ++exponent) all.push_back(std::ldexp(1.0, exponent));
  for (std::uint32_t bits = 1; bits < 0x7C00; bits += 7)
    all.push_back(c10::Half(static_cast<std::uint16_t>(bits), c10::Half::from_bits()));
  for (std::uint32_t bits = 1; bits < 0x7F80; bits += 7)
    all.push_back(std::bit_cast<float>(bits << 16));
  return all;
}

TEST(MethodText, EveryNumberComesBackAsItWas) {
  for (const double value : numbers()) {
    const std::string text = exact_number(value);
    ASSERT_EQ(read_number(text), value) << text;
    ASSERT_EQ(read_number("-" + text), -value) << text;
  }
  for (const double value : numbers()) {
    const std::string number = exact_number(value);
    const Method method =
        parse_method("lora(rank=4,alpha=" + number + ")+magnitude+bias(scale=" + number + ")");
    ASSERT_EQ(method.parts.size(), 3U) << number;
    ASSERT_EQ(method.parts[0].number("alpha"), value) << number;
    ASSERT_EQ(method.parts[2].number("scale"), value) << number;
    ASSERT_EQ(parse_method(method_text(method)), method);
  }
}

TEST(MethodText, ExponentsMayHaveBothSignsInEveryPart) {
  const Method sum = parse_method(
      "oft(block=4,constraint=1e+07) + boft( constraint = 1e-07 ) + lora(alpha=1e+05)");
  EXPECT_EQ(sum.parts[0].number("constraint"), 1e7);
  EXPECT_EQ(sum.parts[1].number("constraint"), 1e-7);
  EXPECT_EQ(sum.parts[2].number("alpha"), 1e5);
  // Aliases take their options along, and stand in the middle of a text.
  const Method dora = parse_method("trm+dora(alpha=1e+06)+bias(scale=2e+00)");
  EXPECT_EQ(method_text(dora),
            "trm(init=asymmetric,rank=2)+lora(alpha=1e+06,rank=4)+magnitude"
            "+bias(scale=2)");
  EXPECT_EQ(parse_method("ia3+rslora(alpha=1e+2)").parts[1].number("alpha"), 100.0);
}

TEST(MethodText, IsSplitOutsideOfBracketsOnly) {
  const auto names = [](const char* text) {
    std::vector<std::string> all;
    for (const PartSpec& part : parse_method(text).parts) all.push_back(part.name);
    return all;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(names("lora(alpha=1e+05)+magnitude"), (Names{"lora", "magnitude"}));
  EXPECT_EQ(names(" trm + tr "), (Names{"trm", "tr"}));
  EXPECT_EQ(names("tlora"), (Names{"trm", "tr"}));
  EXPECT_EQ(names("trm+dora(rank=2)+bias"), (Names{"trm", "lora", "magnitude", "bias"}));
  expect_error(ErrorCode::invalid_argument, "ends with a +", [] { parse_method("lora+"); });
  expect_error(ErrorCode::invalid_argument, "there is no method \"\"", [] { parse_method(""); });
  expect_error(ErrorCode::invalid_argument, "closing bracket",
               [] { parse_method("lora(rank=4+magnitude"); });
  expect_error(ErrorCode::invalid_argument, "there is no method \"\"",
               [] { parse_method("+lora"); });
}

TEST(MethodText, CountsMayBeLargerThanSizes) {
  EXPECT_EQ(parse_method("lokr(rank=100000000)").parts[0].integer("rank"), 100'000'000);
  EXPECT_EQ(parse_method("fourierft(n=2000000)").parts[0].integer("n"), 2'000'000);
  EXPECT_EQ(parse_method("vera(seed=1099511627776)").parts[0].integer("seed"), 1LL << 40);
  expect_error(ErrorCode::invalid_argument, "above 0", [] { parse_method("lora(rank=1000001)"); });
  for (const char* wrong :
       {"lora(alpha=1e999)", "lora(alpha=inf)", "lora(alpha=0)", "lora(alpha=-1e+05)",
        "lora(alpha=0x10)", "lora(alpha=1e+)", "lora(alpha=)", "lokr(rank=1e300)", "lokr(rank=0)"})
    expect_error(ErrorCode::invalid_argument, "must be a number above 0",
                 [&] { parse_method(wrong); });
}

TEST(MethodText, AliasesSayWhatTheyStandForAndTakeOptionsWhereTheyCan) {
  EXPECT_EQ(parse_method("tlora"), tlora());
  EXPECT_EQ(parse_method("pissa(rank=2)"), parse_method("lora(rank=2,init=pissa)"));
  EXPECT_EQ(parse_method("glora(rank=3)"), parse_method("lowrank(rank=3)+lora(init=glora,rank=3)"));
  EXPECT_EQ(parse_method("coft").parts[0].number("constraint"), 6e-5);
  expect_error(ErrorCode::invalid_argument, "\"tlora(rank=2)\" is not understood",
               [] { parse_method("tlora(rank=2)"); });
  expect_error(ErrorCode::invalid_argument, "is given twice",
               [] { parse_method("rslora(scaling=rank)"); });
}

TEST(MethodValue, OptionsRememberWhetherTheyWereChosen) {
  EXPECT_TRUE(parse_method("lora(rank=4)").parts[0].given.contains("rank"));
  EXPECT_FALSE(parse_method("lora(alpha=4)").parts[0].given.contains("rank"));
  EXPECT_TRUE(parse_method("dora(rank=4)").parts[0].given.contains("rank"));
  for (const PartSpec& part : parse_method("tlora").parts) EXPECT_TRUE(part.given.empty());
  // Which is no part of a method's identity.
  EXPECT_EQ(parse_method("lora(rank=4)"), parse_method("lora"));
}

TEST(MethodValue, AlphaFollowsASizeOnlyWhereItIsTheRank) {
  const PartSpec same = make_part("lora", {{"rank", 4}}), own = make_part("lora", {{"alpha", 8.0}});
  EXPECT_EQ(with_size(same, "rank", 6), make_part("lora", {{"rank", 6}, {"alpha", 6.0}}));
  EXPECT_EQ(with_size(own, "rank", 6), make_part("lora", {{"rank", 6}, {"alpha", 8.0}}));
  expect_error(ErrorCode::invalid_argument, "above 0", [&] { with_size(same, "rank", 0); });
}

TEST(MethodValue, OnlyWhatTheRegistryKnowsCanBeMade) {
  const auto refused = [](const char* words, const auto& make) {
    expect_error(ErrorCode::invalid_argument, words, make);
  };
  refused("there is no part \"lorra\"", [] { make_part("lorra"); });
  refused("has no option \"size\"", [] { make_part("lora", {{"size", 4}}); });
  refused("is not known", [] { make_part("lora", {{"init", "zero"}}); });
  refused("is not known", [] { make_part("lora", {{"init", 4}}); });
  refused("must be a number", [] { make_part("lora", {{"rank", "4"}}); });
  refused("must be a whole number", [] { make_part("lora", {{"rank", 1.5}}); });
  refused("must be a number above 0", [] {
    make_part("lora", {{"alpha", std::numeric_limits<double>::infinity()}});
  });
  refused("must be factors", [] { make_part("lokr", {{"out", "2x2"}}); });
  refused("has no part", [] { make_method({}); });
  refused("more than 16", [] { make_method(std::vector<PartSpec>(17, make_part("hra"))); });
  refused("two residuals", [] { make_method({make_part("lora"), make_part("diff")}); });
}

/// A value that the option may have: words and switches, whole numbers up to the largest, doubles
/// of every exponent.
OptionValue random_value(const OptionEntry& option, RandomStream& random) {
  const auto up_to = [&](std::uint64_t most) {
    return static_cast<std::int64_t>(random.next_u64() % most);
  };
  switch (option.kind) {
    case OptionKind::word:
      return option.words[random.next_u64() % option.words.size()];
    case OptionKind::split:
      return up_to(3) == 0 ? Factors() : Factors{1 + up_to(1000), 1 + up_to(1000)};
    case OptionKind::positive_integer:
      return 1 + up_to(kLargestSize);
    case OptionKind::count:
      return 1 + up_to(1ULL << 53);
    case OptionKind::whole:
      return up_to(1ULL << 53);
    case OptionKind::integer:
      return up_to(kLargestSize) - kLargestSize / 2;
    case OptionKind::non_negative:
      if (up_to(8) == 0) return 0.0;
      [[fallthrough]];
    case OptionKind::number:
      break;
  }
  const auto exponent = static_cast<int>(up_to(2098)) - 1074;
  const double value = std::ldexp(1.0 + random.uniform(), exponent);
  return std::isfinite(value) && value > 0.0 ? value : std::numeric_limits<double>::denorm_min();
}

TEST(MethodValue, EveryPartWithAnyOptionsComesBackFromItsText) {
  RandomStream random = Random(1).stream("methods");
  for (const PartEntry& entry : part_registry())
    for (int i = 0; i < 400; ++i) {
      Options options;
      for (const OptionEntry& option : entry.options)
        if (random.next_u64() % 2 == 0) options[option.name] = random_value(option, random);
      const Method method = make_method({make_part(entry.name, std::move(options))});
      const std::string text = method_text(method);
      ASSERT_EQ(parse_method(text), method) << text;
      ASSERT_EQ(method_text(parse_method(text)), text);
    }
}

TEST(MethodValue, SeveralPartsComeBackInTheirOrder) {
  std::vector<PartSpec> parts;
  for (const PartEntry& entry : part_registry())
    if (entry.kind == PartKind::transform) parts.push_back(make_part(entry.name));
  parts.push_back(make_part("foura", {{"gate", "no"}}));
  parts.push_back(make_part("magnitude", {{"axis", "input"}}));
  parts.push_back(make_part("bias", {{"scale", 1e-300}}));
  const Method method = make_method(parts);
  EXPECT_EQ(parse_method(method_text(method)), method);
}

}  // namespace
}  // namespace ringlet::adapt
