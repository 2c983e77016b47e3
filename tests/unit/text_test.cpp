#include "ringlet/core/text.h"

#include <gtest/gtest.h>

namespace ringlet {
namespace {

using namespace std::literals;

TEST(Text, NearestNameFindsTypingErrors) {
  const std::vector<std::string> names = {"euler", "euler-ancestral", "heun", "ddim", "dpmpp-2m"};
  EXPECT_EQ(nearest_name("eulr", names), "euler");
  EXPECT_EQ(nearest_name("eulerr", names), "euler");
  EXPECT_EQ(nearest_name("EULER", names), "euler");
  EXPECT_EQ(nearest_name("ddmi", names), "ddim");  // a swap is one error
  EXPECT_EQ(nearest_name("dpm-2m", names), "dpmpp-2m");
  EXPECT_EQ(nearest_name("heun", names), "heun");
}

TEST(Text, NearestNameStaysSilentWhenNothingIsNear) {
  const std::vector<std::string> names = {"euler", "heun"};
  EXPECT_EQ(nearest_name("completely-different", names), "");
  EXPECT_EQ(nearest_name("", names), "");
  EXPECT_EQ(nearest_name("euler", {}), "");
  EXPECT_EQ(nearest_name(std::string(100000, 'x'), names), "");
}

TEST(Text, NearestNameOfLongDottedNames) {
  const std::vector<std::string> names = {"down_blocks.0.attentions.0.norm.weight",
                                          "down_blocks.0.attentions.1.norm.weight"};
  EXPECT_EQ(nearest_name("down_blocks.0.attentions.1.nrom.weight", names), names[1]);
}

TEST(Text, HumanBytes) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.0 KiB");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes(20 << 10), "20 KiB");
  EXPECT_EQ(human_bytes(1717986918), "1.6 GiB");
  EXPECT_EQ(human_bytes(3ULL << 40), "3.0 TiB");
  EXPECT_EQ(human_bytes(5000ULL << 40), "5000 TiB");  // there is no larger unit
}

TEST(Text, HumanCount) {
  EXPECT_EQ(human_count(0), "0");
  EXPECT_EQ(human_count(12), "12");
  EXPECT_EQ(human_count(999), "999");
  EXPECT_EQ(human_count(797184), "797 k");
  EXPECT_EQ(human_count(1500), "1.5 k");
  EXPECT_EQ(human_count(859520964), "860 M");
  EXPECT_EQ(human_count(2567463684), "2.6 G");
}

TEST(Text, RoundingUpChangesTheUnit) {
  EXPECT_EQ(human_bytes((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(human_count(999999), "1.0 M");
  EXPECT_EQ(human_count(9999), "10 k");
}

TEST(Text, Join) {
  EXPECT_EQ(join({}), "");
  EXPECT_EQ(join(std::vector<std::string>{"a"}), "a");
  EXPECT_EQ(join(std::vector<std::string>{"a", "b", "c"}), "a, b, c");
  EXPECT_EQ(join(std::vector<std::string>{"a", "", "c"}, "/"), "a//c");
  EXPECT_EQ(join(std::vector<std::string>{"", "b"}, "/"), "/b");
}

// Markus Kuhn's stress test, and the limits of every length.
TEST(Text, Utf8IsRecognised) {
  for (const std::string_view text :
       {""sv, "plain"sv, "\0"sv, "\x7f"sv, "\xc2\x80"sv, "\xdf\xbf"sv, "\xe0\xa0\x80"sv,
        "\xed\x9f\xbf"sv, "\xee\x80\x80"sv, "\xef\xbf\xbf"sv, "\xf0\x90\x80\x80"sv,
        "\xf4\x8f\xbf\xbf"sv, "日本 — é😀"sv})
    EXPECT_TRUE(is_utf8(text)) << testing::PrintToString(text);
}

TEST(Text, WhatIsNotUtf8IsRefused) {
  for (const std::string_view text : {"\x80"sv,
                                      "\xbf"sv,
                                      "a\x80"sv,
                                      "\xc0\x80"sv,
                                      "\xc1\xbf"sv,
                                      "\xc2"sv,
                                      "\xc2\x41"sv,
                                      "\xc2\xc2"sv,
                                      "\xe0\x80\x80"sv,
                                      "\xe0\x9f\xbf"sv,
                                      "\xe2\x82"sv,
                                      "\xe2\x82\x41"sv,
                                      "\xed\xa0\x80"sv,
                                      "\xed\xbf\xbf"sv,
                                      "\xf0\x80\x80\x80"sv,
                                      "\xf0\x8f\xbf\xbf"sv,
                                      "\xf0\x9f\x98"sv,
                                      "\xf4\x90\x80\x80"sv,
                                      "\xf5\x80\x80\x80"sv,
                                      "\xf8\x88\x80\x80\x80"sv,
                                      "\xfc\x84\x80\x80\x80\x80"sv,
                                      "\xfe"sv,
                                      "\xff"sv,
                                      "ok\xff"sv,
                                      "caf\xe9"sv})
    EXPECT_FALSE(is_utf8(text)) << testing::PrintToString(text);
}

}  // namespace
}  // namespace ringlet
