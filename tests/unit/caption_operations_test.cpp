#include "ringlet/data/caption_operations.h"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "tests/expect_error.h"

namespace ringlet::data {
namespace {

std::string changed(const CaptionOperations& operations, const std::string& caption,
                    std::uint64_t number = 0) {
  RandomStream random = Random(3).stream("test", number);
  return changed_caption(operations, caption, random);
}

/// What comes of a caption in a few hundred draws, and how often.
std::map<std::string, int> draws(const CaptionOperations& operations, const std::string& caption) {
  std::map<std::string, int> found;
  for (std::uint64_t i = 0; i < 400; ++i) ++found[changed(operations, caption, i)];
  return found;
}

TEST(CaptionOperations, ComeInKohyasOrder) {
  EXPECT_EQ(changed({}, "a dog, brown"), "a dog, brown");
  EXPECT_EQ(changed({}, "first\nsecond"), "first");
  EXPECT_EQ(changed({.prefix = "photo of", .suffix = "outside"}, "a dog"),
            "photo of a dog outside");
  // Prefix and suffix belong to the tags, which stay together at a secondary separator.
  const CaptionOperations all{.prefix = "sks,",
                              .suffix = ", x",
                              .wildcards = true,
                              .keep_tokens = 2,
                              .secondary_separator = ";;;",
                              .shuffle = true};
  const auto found = draws(all, "{a|b}, c;;;d");
  EXPECT_EQ(found.size(), 4u);
  for (const char* caption :
       {"sks, a, c,d, x", "sks, a, x, c,d", "sks, b, c,d, x", "sks, b, x, c,d"})
    EXPECT_GT(found.count(caption), 0u) << caption;
}

TEST(CaptionOperations, WildcardsChooseWordsAndLines) {
  const CaptionOperations on{.wildcards = true};
  EXPECT_EQ(changed({}, "{a|b}"), "{a|b}");
  const auto words = draws(on, "a {red|blue|} dog");
  EXPECT_EQ(words.size(), 3u);
  EXPECT_GT(words.at("a red dog"), 80);
  EXPECT_GT(words.at("a  dog"), 80);
  EXPECT_EQ(draws(on, "one\ntwo {x|y}").size(), 3u);
  EXPECT_EQ(changed(on, "{{a|b}} {} { {c"), "{a|b} {} { {c");
}

TEST(CaptionOperations, TagsThatAreKeptStayAndOthersMoveOrGo) {
  const CaptionOperations shuffled{.keep_tokens = 1, .shuffle = true};
  const auto orders = draws(shuffled, "sks, a,b ,  c");
  EXPECT_EQ(orders.size(), 6u);
  for (const auto& [caption, count] : orders) {
    EXPECT_TRUE(caption.starts_with("sks, ")) << caption;
    EXPECT_GT(count, 35) << caption;  // of 67
  }
  const CaptionOperations marked{.keep_tokens_separator = "|||", .shuffle = true};
  const auto between = draws(marked, "a, b ||| c, d ||| e");
  EXPECT_EQ(between.size(), 2u);
  EXPECT_GT(between.count("a, b, c, d, e") * between.count("a, b, d, c, e"), 0u);
  const CaptionOperations thinned{.keep_tokens = 1, .tag_dropout = 0.25};
  const auto kept = draws(thinned, "sks, a, b");
  EXPECT_EQ(kept.size(), 4u);
  EXPECT_NEAR(kept.at("sks, a, b"), 225, 40);
  EXPECT_NEAR(kept.at("sks"), 25, 20);
}

TEST(CaptionOperations, VariantsAreFunctionsOfTheSeedAndThePicture) {
  const CaptionOperations operations{.shuffle = true, .variants = 5};
  const auto variants = caption_variants(operations, "a, b, c, d, e", Random(1), 7);
  EXPECT_EQ(variants.size(), 5u);
  EXPECT_EQ(variants, caption_variants(operations, "a, b, c, d, e", Random(1), 7));
  EXPECT_NE(variants, caption_variants(operations, "a, b, c, d, e", Random(1), 8));
  EXPECT_NE(variants, caption_variants(operations, "a, b, c, d, e", Random(2), 7));
  EXPECT_EQ(caption_variants(operations, "a", Random(1), 7).size(), 1u);
  EXPECT_EQ(caption_variants({.prefix = "x"}, "a, b", Random(1), 7),
            std::vector<std::string>{"x a, b"});
}

TEST(CaptionOperations, EveryNthEpochIsWithoutCaptions) {
  std::vector<bool> dropped;
  for (std::int64_t epoch = 0; epoch < 6; ++epoch) dropped.push_back(drops_captions(3, epoch));
  EXPECT_EQ(dropped, (std::vector<bool>{false, false, true, false, false, true}));
  EXPECT_FALSE(drops_captions(0, 0));
  EXPECT_TRUE(drops_captions(1, 0));
}

TEST(CaptionOperations, WhatHasNoEffectIsRefused) {
  const auto refused = [](const char* words, const CaptionOperations& operations) {
    expect_error(ErrorCode::invalid_argument, words, [&] { check(operations); });
  };
  refused("keep_tokens: it has no effect", {.keep_tokens = 1});
  refused("keep_tokens_separator: it has no effect", {.keep_tokens_separator = "|||"});
  refused("caption_separator: must not be empty", {.separator = ""});
  refused("tag_dropout", {.tag_dropout = 1.5});
  refused("caption_variants", {.shuffle = true, .variants = 0});
  check({.keep_tokens = 1, .shuffle = true});
}

}  // namespace
}  // namespace ringlet::data
