// T5's tokenizer against SentencePiece and transformers (make_t5_tokenizer.py).
#include <filesystem>

#include <gtest/gtest.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/read_file.h"
#include "ringlet/tokenizers/t5_tokenizer.h"
#include "tests/expect_error.h"
#include "tests/golden/expected.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int64_t>;

const fs::path kT5Data = fs::path(RINGLET_SOURCE_DIR) / "tests/golden/data";
const fs::path kT5Folder = kT5Data / "tokenizers/t5";

/// A folder with one of T5's files.
tokenizers::T5Tokenizer open_alone(const char* file) {
  const TemporaryFolder folder;
  fs::copy_file(kT5Folder / file, folder.path() / file);
  return tokenizers::T5Tokenizer::open(folder.path());
}

class T5TokenizerGolden : public testing::TestWithParam<const char*>, protected golden::Expected {
 protected:
  T5TokenizerGolden() : Expected("t5_tokenizer", 0.0) {}
};

TEST_P(T5TokenizerGolden, IdsEqualSentencePiece) {
  const auto tokenizer = open_alone(GetParam());
  std::vector<std::string> texts;
  const Json others = read_json_file(kT5Data / "tokenizer.json");
  for (const Json& entry : others.at("cases")) texts.push_back(entry[0]);
  for (const Json& text : configs_.at("special")) texts.push_back(text);
  const at::Tensor all = expected_.at("ids").to(at::kLong);
  const at::Tensor lengths = expected_.at("lengths").to(at::kLong);
  ASSERT_EQ(lengths.numel(), static_cast<std::int64_t>(texts.size()));
  EXPECT_GE(texts.size(), 2000U);
  const std::int64_t* next = all.const_data_ptr<std::int64_t>();
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::int64_t length = lengths[static_cast<std::int64_t>(i)].item<std::int64_t>();
    EXPECT_EQ(tokenizer.ids(texts[i]), Ids(next, next + length)) << texts[i];
    next += length;
  }
  const Json& padded = configs_.at("padded");
  for (std::size_t i = 0; i < padded.size(); ++i) {
    const auto prompt = tokenizer.encode_prompt(configs_.at("special")[i].get<std::string>(), 12);
    EXPECT_EQ(prompt.ids, padded[i].get<Ids>()) << configs_.at("special")[i];
  }
}

TEST_P(T5TokenizerGolden, KnowsItsTokensAndWhatWasCut) {
  const auto tokenizer = open_alone(GetParam());
  EXPECT_EQ(tokenizer.pad_id(), 0);
  EXPECT_EQ(tokenizer.token(1), "</s>");
  const std::int64_t count = tokenizer.vocabulary_size();
  EXPECT_EQ(tokenizer.token(count - 1), "<extra_id_0>");
  EXPECT_EQ(tokenizer.token(count - 100), "<extra_id_99>");
  EXPECT_EQ(tokenizer.token(count), "");
  const auto cut = tokenizer.encode_prompt("photo of a castle by the river", 4);
  EXPECT_EQ(cut.used, 4);
  EXPECT_EQ(cut.ids.back(), 1);
  EXPECT_TRUE(cut.cut.ends_with("by the river")) << cut.cut;
  const auto whole = tokenizer.encode_prompt("photo", 30);
  EXPECT_EQ(whole.cut, "");
  EXPECT_EQ(whole.ids.size(), 30U);
  EXPECT_EQ(whole.ids[static_cast<std::size_t>(whole.used)], 0);
  EXPECT_EQ(tokenizer.encode_prompt("photo", 1).ids, Ids{1});
  expect_error(ErrorCode::invalid_argument, "UTF-8", [&] { tokenizer.ids("caf\xe9"); });
}
INSTANTIATE_TEST_SUITE_P(Files, T5TokenizerGolden,
                         testing::Values("spiece.model", "tokenizer.json"));

TEST(T5Tokenizer, FilesThatAreNotItsOwnAreRefused) {
  const TemporaryFolder folder;
  const auto expect = [&](ErrorCode code, const char* words) {
    expect_error(code, words, [&] { tokenizers::T5Tokenizer::open(folder.path()); });
  };
  expect(ErrorCode::not_found, "spiece.model or tokenizer.json");
  const Json good = read_json_file(kT5Folder / "tokenizer.json");
  const auto write = [&](const std::function<void(Json&)>& change) {
    Json changed = good;
    change(changed);
    write_file_atomically(folder.path() / "tokenizer.json", changed.dump());
  };
  write([](Json& json) { json["model"]["type"] = "BPE"; });
  expect(ErrorCode::unsupported, "is not a Unigram tokenizer");
  write([](Json& json) { json["model"]["byte_fallback"] = true; });
  expect(ErrorCode::unsupported, "byte_fallback");
  write([](Json& json) { json["model"]["unk_id"] = 1000000; });
  expect(ErrorCode::bad_format, "unk_id");
  write([](Json& json) { json["model"]["vocab"][5] = "a"; });
  expect(ErrorCode::bad_format, "not a text with a score");
  write([](Json& json) { json["model"]["vocab"][5] = json["model"]["vocab"][6]; });
  expect(ErrorCode::bad_format, "not a model of SentencePiece");  // one piece twice
  write([](Json& json) { json["normalizer"]["precompiled_charsmap"] = "?"; });
  expect(ErrorCode::bad_format, "base64");
  write([](Json& json) { json["model"]["vocab"][0][0] = "<padding>"; });
  expect(ErrorCode::bad_format, "has no \"<pad>\"");
  const std::string model = read_file(kT5Folder / "spiece.model");
  for (const std::string& damaged : {std::string("version https://git-lfs.github.com/spec/v1\n"),
                                     std::string(), model.substr(0, model.size() / 2)}) {
    write_file_atomically(folder.path() / "spiece.model", damaged);
    expect(ErrorCode::bad_format, "not a model of SentencePiece");
  }
}

}  // namespace
}  // namespace ringlet
