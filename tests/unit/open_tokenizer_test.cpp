// Which tokenizer a folder has, and what all of them answer through one interface.
#include <filesystem>

#include <gtest/gtest.h>

#include "ringlet/tokenizers/byte_bpe_tokenizer.h"
#include "ringlet/tokenizers/clip_tokenizer.h"
#include "ringlet/tokenizers/t5_tokenizer.h"
#include "ringlet/tokenizers/wordpiece_tokenizer.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::tokenizers {
namespace {

namespace fs = std::filesystem;
const fs::path kData = fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data";

TEST(OpenTokenizer, KnowsItByItsFiles) {
  const auto clip = open_tokenizer(kData / "tokenizer");
  const auto bytes = open_tokenizer(kData / "tokenizers/byte_bpe");
  const auto pieces = open_tokenizer(kData / "tokenizers/wordpiece");
  EXPECT_NE(dynamic_cast<const ClipTokenizer*>(clip.get()), nullptr);
  EXPECT_NE(dynamic_cast<const ByteBpeTokenizer*>(bytes.get()), nullptr);
  EXPECT_NE(dynamic_cast<const WordPieceTokenizer*>(pieces.get()), nullptr);
  const auto t5 = open_tokenizer(kData / "tokenizers/t5");
  EXPECT_NE(dynamic_cast<const T5Tokenizer*>(t5.get()), nullptr);
  EXPECT_EQ(t5->max_length(), 512);
  EXPECT_EQ(clip->ids("a cat"), ClipTokenizer::open(kData / "tokenizer").ids("a cat"));
  EXPECT_EQ(clip->max_length(), 77);
  EXPECT_EQ(bytes->max_length(), 0);
  for (const auto& tokenizer : {clip, bytes, pieces, t5})
    for (const std::int64_t id : tokenizer->ids("a cat, 12!")) {
      EXPECT_LT(id, tokenizer->vocabulary_size());
      EXPECT_NE(tokenizer->token(id), "") << id;
    }
}

TEST(OpenTokenizer, IdsAreThoseOfEncodeWithoutTheCut) {
  for (const char* name : {"tokenizers/byte_bpe", "tokenizers/wordpiece"}) {
    const auto tokenizer = open_tokenizer(kData / name);
    const auto all = tokenizer->ids("some words of a text");
    EXPECT_EQ(tokenizer->encode("some words of a text", 1000).ids, all);
    ASSERT_GT(all.size(), 5u);
    const auto cut = tokenizer->encode("some words of a text", 5).ids;
    EXPECT_EQ(cut.size(), 5u);
    EXPECT_EQ(cut.front(), all.front());
    EXPECT_EQ(cut.back(), all.back());
  }
}

TEST(OpenTokenizer, WhatATokenizerCannotDoIsAnError) {
  const auto clip = open_tokenizer(kData / "tokenizer");
  const auto pieces = open_tokenizer(kData / "tokenizers/wordpiece");
  expect_error(ErrorCode::unsupported, "one text, not two", [&] { clip->encode("a", "b", 20); });
  expect_error(ErrorCode::unsupported, "does not encode prompts",
               [&] { pieces->encode_prompt("a", 20); });
  expect_error(ErrorCode::unsupported, "cannot be added", [&] { pieces->with_word("a", {1}); });
  EXPECT_TRUE(pieces->own_words("a").empty());
}

TEST(OpenTokenizer, AFolderWithoutOneIsNamed) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::not_found, "vocab.json and merges.txt, or tokenizer.json",
               [&] { open_tokenizer(folder.path()); });
}

}  // namespace
}  // namespace ringlet::tokenizers
