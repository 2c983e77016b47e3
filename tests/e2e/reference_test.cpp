// docs/cli.md is what the program says of its options.
#include <sstream>

#include <gtest/gtest.h>

#include "ringlet/core/read_file.h"
#include "tests/e2e/run_program.h"

namespace ringlet::e2e {
namespace {

std::string reference() {
  const ProgramResult result = run_program({"help", "--markdown"});
  EXPECT_EQ(result.status, 0) << result.err;
  return result.out;
}

TEST(Reference, TheDocumentIsWhatTheProgramPrints) {
  const std::string written = read_file(std::string(RINGLET_SOURCE_DIR) + "/docs/cli.md");
  EXPECT_TRUE(written == reference())
      << "docs/cli.md is out of date; write it again: " << RINGLET_BINARY
      << " help --markdown > docs/cli.md";
}

TEST(Reference, HoldsEveryOptionThatHelpLists) {
  const std::string all = reference();
  for (const char* verb : {"generate", "train", "tune", "control", "merge", "convert", "extract",
                           "inspect", "doctor"}) {
    const ProgramResult help = run_program({"help", verb});
    EXPECT_EQ(help.status, 0) << help.err;
    std::istringstream words(help.out);
    int found = 0;
    for (std::string word; words >> word;) {
      if (!word.starts_with("--") || word == "--help" || word == "--config") continue;
      word = word.substr(0, word.find_first_not_of("abcdefghijklmnopqrstuvwxyz-"));
      EXPECT_NE(all.find("`" + word), std::string::npos) << verb << ": " << word;
      ++found;
    }
    EXPECT_GT(found, 5) << verb;
  }
}

}  // namespace
}  // namespace ringlet::e2e
