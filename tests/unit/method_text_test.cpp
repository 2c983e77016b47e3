// Numbers in method texts: what a file may hold travels as text and must come back as it was.
#include <bit>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ringlet/adapt/method.h"
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
    ASSERT_EQ(parse_method(method.text()).text(), method.text());
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
  EXPECT_EQ(dora.text(),
            "trm(init=asymmetric,rank=2)+lora(alpha=1e+06,rank=4)+magnitude"
            "+bias(scale=2e+00)");
  EXPECT_EQ(parse_method("ia3+rslora(alpha=1e+2)").parts[1].number("alpha"), 100.0);
}

TEST(MethodText, IsSplitOutsideOfBracketsOnly) {
  using Texts = std::vector<std::string>;
  EXPECT_EQ(split_method("lora(alpha=1e+05)+magnitude"), (Texts{"lora(alpha=1e+05)", "magnitude"}));
  EXPECT_EQ(split_method(" trm + tr "), (Texts{"trm", "tr"}));
  EXPECT_EQ(split_method("tlora"), Texts{"tlora"});
  EXPECT_EQ(split_method("a+"), (Texts{"a", ""}));
  EXPECT_EQ(split_method(""), Texts{""});
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

}  // namespace
}  // namespace ringlet::adapt
