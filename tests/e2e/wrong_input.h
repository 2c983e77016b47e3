// One wrong input as a person makes it, and what the program must say to it.
#pragma once

#include <algorithm>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/e2e/run_program.h"
#include "tests/golden/tiny_model.h"
#include "tests/temporary_folder.h"

namespace ringlet::e2e {

namespace fs = std::filesystem;

struct WrongInput {
  const char* name;
  Arguments arguments;             ///< "@" at the begin of a word is the test's folder
  int status;                      ///< README.md lists them
  std::vector<std::string> words;  ///< of the message: what is wrong and what to do about it
  void (*prepare)(const fs::path& folder) = nullptr;  ///< the tiny model is at folder/model
};

inline void PrintTo(const WrongInput& input, std::ostream* out) { *out << input.name; }

inline std::string name_of(const testing::TestParamInfo<WrongInput>& info) {
  return info.param.name;
}

/// `generate` with a model, a prompt, and more.
inline Arguments picture_of(const std::string& model, const Arguments& more = {}) {
  Arguments all = {"generate", "--model", model, "--prompt", "a cat", "--out", "@/out"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

/// `generate` with the tiny model.
inline Arguments picture(const Arguments& more) { return picture_of("@/model", more); }

inline void write_text(const fs::path& path, std::string_view text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

class WrongInputTest : public testing::TestWithParam<WrongInput> {
 protected:
  ProgramResult run(const Arguments& more = {}) const {
    const bool needs_model = GetParam().prepare != nullptr ||
                             std::ranges::any_of(GetParam().arguments, [](const std::string& word) {
                               return word.starts_with("@/model");
                             });
    if (needs_model) golden::write_folder(folder_ / "model", "sd1");
    if (GetParam().prepare != nullptr) GetParam().prepare(folder_.path());
    Arguments arguments = GetParam().arguments;
    arguments.insert(arguments.end(), more.begin(), more.end());
    for (std::string& word : arguments)
      if (word.starts_with("@")) word = folder_.path().string() + word.substr(1);
    return run_program(arguments);
  }

  /// A clear message, and nothing said that only a programmer understands.
  static void expect_message(const std::string& text) {
    for (const std::string& words : GetParam().words)
      EXPECT_NE(text.find(words), std::string::npos) << "lacks \"" << words << "\":\n" << text;
    for (const char* words : {"terminate called", "internal", "defect", "exception", "c10::"})
      EXPECT_EQ(text.find(words), std::string::npos) << text;
    constexpr std::size_t kLongest = 2000;
    EXPECT_LT(text.size(), kLongest) << text;
  }

  /// No picture, no latents, no temporary file.
  void expect_no_output() const {
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      if (!entry.path().filename().string().starts_with("out")) continue;
      EXPECT_TRUE(entry.is_directory() && fs::is_empty(entry.path())) << entry.path();
    }
  }

  /// The whole of what a refused command does.
  void expect_explained() const {
    const ProgramResult result = run();
    EXPECT_EQ(result.status, GetParam().status) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(result.err.find("ringlet: error: ") != std::string::npos) << result.err;
    expect_message(result.err);
    expect_no_output();
  }

  TemporaryFolder folder_;
};

}  // namespace ringlet::e2e
