#include "ringlet/eval/generation_record.h"

#include <fstream>

#include <gtest/gtest.h>

#include "ringlet/core/json.h"
#include "tests/expect_error.h"
#include "tests/temporary_folder.h"

namespace ringlet::eval {
namespace {

namespace fs = std::filesystem;

class ClaimFolder : public testing::Test {
 protected:
  void picture(const char* name = "a-s1.png") const {
    std::ofstream(folder_ / "made" / name) << "x";
  }
  void claim(const GenerationRecord& record) const { claim_folder(folder_ / "made", record); }

  TemporaryFolder folder_;
  GenerationRecord record_ = {{{"model", "tiny (0123)"}, {"steps", "20"}, {"guidance", "3"}},
                              {{"a", "a dog"}, {"b", "a cat"}}};
};

TEST_F(ClaimFolder, TheSameSettingsGoOn) {
  claim(record_);
  const Json json = read_json_file(folder_ / "made/generation.json");
  EXPECT_EQ(json.at("settings").at("steps"), "20");
  EXPECT_EQ(json.at("prompts").at("b"), "a cat");
  picture();
  claim(record_);
  GenerationRecord bytes = record_;
  bytes.settings.emplace_back("adapters", "dog\xff:1");  // names of files need not be UTF-8
  fs::remove(folder_ / "made/a-s1.png");
  claim(bytes);
  picture();
  claim(bytes);
}

TEST_F(ClaimFolder, RefusesPicturesOfOtherSettings) {
  claim(record_);
  picture();
  GenerationRecord other = record_;
  other.settings[1].second = "30";
  other.settings[2].second = "4";
  expect_error(ErrorCode::mismatch, "steps was \"20\" and is now \"30\"", [&] { claim(other); });
  expect_error(ErrorCode::mismatch, "give another `generated`", [&] { claim(other); });
  other = record_;
  other.prompts[1].second = "a horse";
  expect_error(ErrorCode::mismatch, "the prompt of b was \"a cat\" and is now \"a horse\"",
               [&] { claim(other); });
  other.prompts.pop_back();
  expect_error(ErrorCode::mismatch, "the prompt of b was \"a cat\" and is now nothing",
               [&] { claim(other); });
  other = record_;
  other.settings.emplace_back("controlnet", "net (4567)");
  expect_error(ErrorCode::mismatch, "controlnet was nothing and is now \"net (4567)\"",
               [&] { claim(other); });
  claim(record_);  // the refusals have left the record as it was
}

TEST_F(ClaimFolder, WithoutPicturesTheRecordIsWrittenAnew) {
  claim(record_);
  record_.settings[1].second = "30";
  claim(record_);
  EXPECT_EQ(read_json_file(folder_ / "made/generation.json").at("settings").at("steps"), "30");
}

TEST_F(ClaimFolder, RefusesPicturesOfUnknownOrigin) {
  fs::create_directories(folder_ / "made");
  picture("a.JPG");
  expect_error(ErrorCode::mismatch, "without a generation.json", [&] { claim(record_); });
  std::ofstream(folder_ / "made/generation.json") << "{}";
  expect_error(ErrorCode::bad_format, "settings", [&] { claim(record_); });
}

TEST_F(ClaimFolder, TheSummaryTellsPromptsApart) {
  GenerationRecord other = record_;
  EXPECT_EQ(other.summary(), record_.summary());
  other.prompts[0].second = "a wolf";
  EXPECT_NE(other.summary().back(), record_.summary().back());
  EXPECT_EQ(record_.summary().back().second.substr(0, 3), "2 (");
}

}  // namespace
}  // namespace ringlet::eval
