// The CLIP tokenizer against transformers (make_tokenizer.py).
#include <cstdlib>

#include <gtest/gtest.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/tokenizers/clip_tokenizer.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int64_t>;

const fs::path kTokenizerData = fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data";

/// Another folder with cases may be named, to check the full vocabulary by hand.
fs::path tokenizer_folder() {
  const char* other = std::getenv("RINGLET_TOKENIZER_CASES");
  return other != nullptr ? fs::path(other) : kTokenizerData / "tokenizer";
}
Json cases() {
  const fs::path beside = tokenizer_folder() / "cases.json";
  return read_json_file(fs::exists(beside) ? beside : kTokenizerData / "tokenizer.json");
}

TEST(TokenizerGolden, IdsEqualTransformers) {
  const auto tokenizer = tokenizers::ClipTokenizer::open(tokenizer_folder());
  const Json all = cases();
  EXPECT_GE(all.at("cases").size(), 2000u);
  for (const Json& entry : all.at("cases"))
    EXPECT_EQ(tokenizer.ids(entry[0].get<std::string>()), entry[1].get<Ids>()) << entry[0];
}

TEST(TokenizerGolden, CuttingAndPaddingEqualTransformers) {
  const auto tokenizer = tokenizers::ClipTokenizer::open(tokenizer_folder());
  for (const Json& entry : cases().at("padded"))
    EXPECT_EQ(tokenizer.encode_prompt(entry[0].get<std::string>(), 20).ids, entry[1].get<Ids>())
        << entry[0];
}

TEST(TokenizerGolden, SpecialTokenFilesAreReadAsTransformersDoes) {
  for (const Json& variant : cases().at("variants")) {
    const TemporaryFolder folder;
    for (const char* name : {"vocab.json", "merges.txt"})
      fs::copy_file(tokenizer_folder() / name, folder.path() / name);
    write_file_atomically(folder.path() / "tokenizer_config.json", variant.at("config").dump());
    if (!variant.at("map").is_null())
      write_file_atomically(folder.path() / "special_tokens_map.json", variant.at("map").dump());
    const auto tokenizer = tokenizers::ClipTokenizer::open(folder.path());
    for (const Json& entry : variant.at("cases"))
      EXPECT_EQ(tokenizer.encode_prompt(entry[0].get<std::string>(), 12).ids, entry[1].get<Ids>())
          << entry[0] << variant.at("config");
  }
}

TEST(Tokenizer, TellsWhatWasCut) {
  const auto tokenizer = tokenizers::ClipTokenizer::open(kTokenizerData / "tokenizer");
  const auto encoded = tokenizer.encode_prompt("one two three four five six", 5);
  EXPECT_EQ(encoded.ids.size(), 5u);
  EXPECT_EQ(encoded.used, 5);
  EXPECT_TRUE(encoded.cut.ends_with("four five six")) << encoded.cut;
  EXPECT_EQ(tokenizer.encode_prompt("one", 10).cut, "");
}

TEST(Tokenizer, OneMegabyteWordIsFast) {
  const auto tokenizer = tokenizers::ClipTokenizer::open(kTokenizerData / "tokenizer");
  EXPECT_GT(tokenizer.ids(std::string(1 << 20, 'a')).size(), 1000u);
}

TEST(Tokenizer, RefusesInvalidUtf8) {
  const auto tokenizer = tokenizers::ClipTokenizer::open(kTokenizerData / "tokenizer");
  EXPECT_THROW(tokenizer.ids("caf\xe9"), Error);
}

}  // namespace
}  // namespace ringlet
