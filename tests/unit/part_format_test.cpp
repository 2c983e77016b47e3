// The list of parts' forms in other programs' files: what a new line must not break.
#include "ringlet/formats/part_format.h"

#include <set>
#include <string>
#include <tuple>

#include <gtest/gtest.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/registry.h"
#include "ringlet/formats/adapter_tensors.h"

namespace ringlet::formats {
namespace {

constexpr Spellings kAll[] = {kPeftNames, kDotted, kShared, kUnderscored, kCloneofsimo};

TEST(PartFormats, AnEndingMeansOneThingInADialect) {
  std::set<std::tuple<Spellings, std::string>> seen;
  for (const PartFormat& format : part_formats())
    for (const Ending& one : format.endings)
      for (const Spellings group : kAll)
        if ((one.spellings & group) != 0) {
          EXPECT_TRUE(seen.emplace(group, one.text).second) << one.text;
        }
}

TEST(PartFormats, NoRowIsWrittenTwice) {
  std::set<std::tuple<std::string, std::string>> seen;
  for (const PartFormat& format : part_formats())
    for (const Ending& one : format.endings)
      EXPECT_TRUE(seen.emplace(one.text, one.what).second) << one.text;
}

TEST(PartFormats, AreOfPartsThatExistAndSayWhoHoldsThem) {
  std::set<std::string> parts;
  for (const PartFormat& format : part_formats()) {
    const std::string part = format.part;
    EXPECT_EQ(format.write == nullptr, format.held_by.empty()) << part;
    EXPECT_EQ(format.read == nullptr, format.recognises == nullptr) << part;
    if (part.empty()) {
      EXPECT_EQ(format.write, nullptr) << format.shown;
      continue;
    }
    EXPECT_NE(adapt::part_named(part), nullptr) << part;
    EXPECT_TRUE(parts.insert(part).second) << part;
    EXPECT_EQ(find_format(part), &format);
    EXPECT_EQ(format.holds(AdapterFormat::peft), !format.peft.types.empty()) << part;
    EXPECT_FALSE(format.holds(AdapterFormat::ringlet)) << part;
  }
  EXPECT_EQ(find_format("tr"), nullptr);
}

TEST(PartFormats, ProgramsKnowAMethodByItsTransformElseByItsResidual) {
  const auto leading = [](const char* text) {
    return leading_part(adapt::parse_method(text)).name;
  };
  EXPECT_EQ(leading("lora+oft"), "oft");
  EXPECT_EQ(leading("magnitude+lora"), "lora");
  EXPECT_EQ(leading("bias+diff"), "diff");
  EXPECT_EQ(leading("bias"), "bias");
}

TEST(PartFormats, WhatIsWrittenIsReadAsTheSame) {
  EXPECT_EQ(ending(Naming::peft, "down"), ".lora_A.weight");
  EXPECT_EQ(ending(Naming::diffusers, "down"), ".lora_A.weight");
  EXPECT_EQ(ending(Naming::kohya, "down"), ".lora_down.weight");
  EXPECT_EQ(ending(Naming::kohya, "magnitude"), ".dora_scale");
  EXPECT_EQ(ending(Naming::kohya, "ia3"), ".weight");
  EXPECT_EQ(ending(Naming::peft, "oft_r"), ".oft_R.weight");
  EXPECT_TRUE(is_setting("alpha"));
  EXPECT_TRUE(is_setting("on_input"));
  EXPECT_TRUE(is_setting("oft_scaled"));
  EXPECT_FALSE(is_setting("down"));
}

}  // namespace
}  // namespace ringlet::formats
