#include "ringlet/tokenizers/clip_tokenizer.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet::tokenizers {
namespace {

namespace fs = std::filesystem;
using namespace std::literals;

const ClipTokenizer& tokenizer() {
  static const ClipTokenizer instance = ClipTokenizer::open(golden::data_folder() / "tokenizer");
  return instance;
}

void expect_well_formed(const EncodedPrompt& prompt) {
  ASSERT_EQ(prompt.ids.size(), 77u);
  ASSERT_GE(prompt.used, 2);
  ASSERT_LE(prompt.used, 77);
  EXPECT_EQ(prompt.ids.front(), tokenizer().begin_id());
  EXPECT_EQ(prompt.ids[static_cast<std::size_t>(prompt.used) - 1], tokenizer().end_id());
  for (const std::int64_t id : prompt.ids) {
    EXPECT_GE(id, 0);
    EXPECT_LT(id, tokenizer().vocabulary_size());
  }
}

// An encoder without an end token reads the pooled state of a wrong place.
TEST(ClipTokenizer, ATooLongPromptKeepsItsEndToken) {
  std::string prompt = "first";
  for (int i = 0; i < 200; ++i) prompt += " cat";
  prompt += " last words";
  const EncodedPrompt encoded = tokenizer().encode_prompt(prompt, 77);
  expect_well_formed(encoded);
  EXPECT_EQ(encoded.used, 77);
  EXPECT_EQ(encoded.ids.back(), tokenizer().end_id());
  EXPECT_TRUE(encoded.cut.starts_with("cat")) << encoded.cut;
  EXPECT_TRUE(encoded.cut.ends_with("last words")) << encoded.cut;
  EXPECT_EQ(std::ranges::count(encoded.ids, tokenizer().end_id()), 1);
}

// Kept and cut tokens together are the prompt: nothing is lost at the seam.
TEST(ClipTokenizer, TheCutBeginsWhereTheKeptPartEnds) {
  std::string prompt;
  for (int i = 0; i < 60; ++i) prompt += std::to_string(i) + " ";
  const std::vector<std::int64_t> all = tokenizer().ids(prompt);
  ASSERT_GT(all.size(), 77u);
  const EncodedPrompt encoded = tokenizer().encode_prompt(prompt, 77);
  const std::string whole = tokenizer().decode(all);
  const std::string kept = tokenizer().decode(encoded.ids);
  EXPECT_EQ(kept + " " + encoded.cut, whole);
}

TEST(ClipTokenizer, APromptThatJustFitsIsNotCut) {
  std::string prompt;
  std::size_t words = 0;
  while (tokenizer().ids(prompt + " a").size() <= 77 && ++words < 100) prompt += " a";
  const EncodedPrompt fits = tokenizer().encode_prompt(prompt, 77);
  EXPECT_EQ(fits.used, 77);
  EXPECT_EQ(fits.cut, "");
  EXPECT_EQ(tokenizer().encode_prompt(prompt + " a", 77).cut, "a");
}

TEST(ClipTokenizer, AnEmptyPromptIsBeginAndEnd) {
  for (const std::string_view prompt : {""sv, " "sv, "\n\t \u3000"sv}) {
    const EncodedPrompt encoded = tokenizer().encode_prompt(prompt, 77);
    expect_well_formed(encoded);
    EXPECT_EQ(encoded.used, 2);
  }
}

TEST(ClipTokenizer, StrangeTextIsEncoded) {
  for (const std::string& prompt :
       {"\0"s, "a\0b"s, "😀👩‍👩‍👧‍👦🏳️‍🌈"s, "\U0010ffff\ue000"s,
        "e\u0301\u0301\u0301"s, "مرحبا שלום 日本 한국"s, "\u202e\u200b\ufeff"s,
        std::string(1 << 20, '\0'), std::string(1 << 20, ' '), std::string(1 << 20, '\''),
        "<|startoftext|><|endoftext|>"s, "<|endoftext"s, "</w>"s,
        std::string(100000, '(') + "x" + std::string(100000, ')')})
    expect_well_formed(tokenizer().encode_prompt(prompt, 77));
}

TEST(ClipTokenizer, OneMegabyteOfWordsIsEncoded) {
  std::string prompt;
  while (prompt.size() < 1 << 20) prompt += "a photo of a cat, ";
  const EncodedPrompt encoded = tokenizer().encode_prompt(prompt, 77);
  expect_well_formed(encoded);
  EXPECT_GT(encoded.cut.size(), 1000000u);
}

TEST(ClipTokenizer, TextThatIsNotUtf8IsRefused) {
  for (const std::string& prompt :
       {"\xff"s, "caf\xe9"s, "\xed\xa0\x80"s, "ok \xc0\x80"s, "\xf0\x9f"s})
    expect_error(ErrorCode::invalid_argument, "not valid UTF-8",
                 [&] { tokenizer().encode_prompt(prompt, 77); });
}

TEST(ClipTokenizer, DecodeIgnoresForeignIds) {
  const std::vector<std::int64_t> ids = {-1, 1 << 30, tokenizer().begin_id()};
  EXPECT_EQ(tokenizer().decode(ids), "");
  EXPECT_EQ(tokenizer().token(-5), "");
}

// As transformers 5.23 finds added tokens: anywhere, whatever the case.
TEST(ClipTokenizer, WordsOfItsOwnAreFoundInsideOthersToo) {
  const std::int64_t id = tokenizer().vocabulary_size();
  const auto with = tokenizer().with_word("Cat", {id, id + 1})->with_word("cat-toy", {id + 2});
  const auto count = [&](const std::string& text, std::int64_t wanted) {
    return std::ranges::count(with->ids(text), wanted);
  };
  EXPECT_EQ(count("a cat, a CAT", id), 2);
  EXPECT_EQ(count("concatenate", id + 1), 1);
  EXPECT_EQ(count("a cat-toy", id), 0);  // the longest wins
  EXPECT_EQ(count("a cat-toy", id + 2), 1);
  const std::vector<WordPlace> places = with->own_words("a cat-toy <|endoftext|> concatenate");
  ASSERT_EQ(places.size(), 2u);
  EXPECT_EQ(places[0].word, "cat-toy");
  EXPECT_EQ(places[0].begin, 2u);
  EXPECT_EQ(places[1].word, "Cat");
  EXPECT_EQ(places[1].begin, 27u);
  EXPECT_TRUE(tokenizer().own_words("a cat").empty());
  EXPECT_EQ(with->ids("a dog"), tokenizer().ids("a dog"));
  expect_error(ErrorCode::invalid_argument, "is already in the tokenizer's vocabulary",
               [&] { with->with_word("CAT", {id + 3}); });
}

class TokenizerFolder : public testing::Test {
 protected:
  TokenizerFolder() { golden::write_tokenizer(path(), "<|endoftext|>"); }
  fs::path path() const { return folder_ / "tokenizer"; }
  void expect(ErrorCode code, std::string_view words) const {
    expect_error(code, words, [&] { ClipTokenizer::open(path()); });
  }
  TemporaryFolder folder_;
};

TEST_F(TokenizerFolder, MissingFilesAreNamed) {
  expect_error(ErrorCode::not_found, "elsewhere",
               [&] { ClipTokenizer::open(folder_ / "elsewhere"); });
  fs::remove(path() / "merges.txt");
  expect(ErrorCode::not_found, "vocab.json and merges.txt, or tokenizer.json");
  fs::remove(path() / "vocab.json");
  expect(ErrorCode::not_found, "no CLIP tokenizer here");
}

TEST_F(TokenizerFolder, TheConfigurationFileIsOptional) {
  fs::remove(path() / "tokenizer_config.json");
  const auto plain = ClipTokenizer::open(path());
  EXPECT_EQ(plain.max_length(), 77);
  EXPECT_EQ(plain.pad_id(), plain.end_id());
}

TEST_F(TokenizerFolder, AnotherPadTokenReplacesTheConfigured) {
  const auto open_clip = ClipTokenizer::open(path(), "!");
  EXPECT_EQ(open_clip.token(open_clip.pad_id()), "!");
  EXPECT_NE(open_clip.pad_id(), open_clip.end_id());
  EXPECT_EQ(open_clip.encode_prompt("a", 77).ids.back(), open_clip.pad_id());
  expect_error(ErrorCode::bad_format, "no such token",
               [&] { ClipTokenizer::open(path(), "no such token"); });
}

TEST_F(TokenizerFolder, DamagedVocabulariesAreRefused) {
  for (const char* text : {"[]", "7", "{}", R"({"a":-1})", R"({"a":1.5})", R"({"a":"1"})",
                           R"({"a":1,"b":1})", R"({"a":18446744073709551615})", R"({"a":1)"}) {
    SCOPED_TRACE(text);
    write_file_atomically(path() / "vocab.json", text);
    expect(ErrorCode::bad_format, "vocab.json");
  }
}

TEST_F(TokenizerFolder, DamagedMergesAreRefused) {
  for (const char* text : {"one\n", "a b c\n", "nosuch token</w>\n", "a \n"}) {
    SCOPED_TRACE(text);
    write_file_atomically(path() / "merges.txt", text);
    expect(ErrorCode::bad_format, "vocab.json");
  }
}

// An empty special token is found at every place of a text: the search would never move on.
TEST_F(TokenizerFolder, EmptySpecialTokensAreRefused) {
  Json vocabulary = read_json_file(path() / "vocab.json");
  vocabulary[""] = 5000;
  golden::write_json(path() / "vocab.json", vocabulary);
  golden::write_json(path() / "tokenizer_config.json", {{"unk_token", ""}});
  expect(ErrorCode::bad_format, "special token");
}

TEST_F(TokenizerFolder, ForeignTokenizersAreRefused) {
  fs::remove(path() / "vocab.json");
  for (const char* text :
       {R"({"model":{"type":"Unigram"}})", R"({"model":{"type":"BPE"}})", R"({"model":7})"}) {
    write_file_atomically(path() / "tokenizer.json", text);
    expect(ErrorCode::unsupported, "not a CLIP tokenizer");
  }
  write_file_atomically(path() / "tokenizer.json", "{}");
  expect(ErrorCode::bad_format, "\"model\" is missing");
}

}  // namespace
}  // namespace ringlet::tokenizers
