// How threads wait and how many there are, in the program as it starts.
#include "ringlet/core/processors.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/tiny_training.h"

namespace ringlet::e2e {
namespace {

/// GOMP_SPINCOUNT as GNU's OpenMP runtime has read it; "" where another runtime is loaded.
std::string spin_count(const Arguments& arguments, Arguments environment) {
  environment.emplace_back("OMP_DISPLAY_ENV=verbose");
  const std::string said = run_program(arguments, {.environment = std::move(environment)}).err;
  const std::string key = "GOMP_SPINCOUNT = '";
  const std::size_t found = said.rfind(key);
  if (found == std::string::npos) return "";
  return said.substr(found + key.size(), said.find('\'', found + key.size()) - found - key.size());
}

TEST(Threads, WaitShortlyInVerbsThatCompute) {
  const std::string own = spin_count({"--version"}, {});
  if (own.empty()) GTEST_SKIP() << "the OpenMP runtime is not GNU's";
  EXPECT_EQ(spin_count({"inspect", "--help"}, {}), own);
  for (const char* verb : {"train", "tune", "generate", "eval", "extract"})
    EXPECT_EQ(spin_count({verb, "--help"}, {}), "100000") << verb;
}

TEST(Threads, WaitAsTheUserSays) {
  const std::string own = spin_count({"--version"}, {"OMP_WAIT_POLICY=passive"});
  if (own.empty()) GTEST_SKIP() << "the OpenMP runtime is not GNU's";
  EXPECT_EQ(spin_count({"train", "--help"}, {"OMP_WAIT_POLICY=passive"}), own);
  EXPECT_EQ(spin_count({"train", "--help"}, {"GOMP_SPINCOUNT=77"}), "77");
}

// The program is started anew within itself: nothing of its call may get lost.
TEST(Threads, ArgumentsAndVariablesArriveAsTheyWere) {
  const ProgramResult result =
      run_program({"train", "--steps", "two words"}, {.environment = Arguments{"A=b"}});
  EXPECT_EQ(result.status, 2);
  EXPECT_NE(result.err.find("two words"), std::string::npos) << result.err;
}

class TrainingThreads : public TinyProgram {
 protected:
  /// What a run's log says of threads.
  std::string said(const Arguments& environment, const Arguments& more = {}) {
    if (!fs::exists(folder_ / "model")) {
      write_model("sd1");
      train::write_pictures(folder_ / "pictures");
    }
    fs::remove_all(folder_ / "out");
    Arguments all = {"--sample-images", "1", "--sample-steps", "1"};
    all.insert(all.end(), more.begin(), more.end());
    const Arguments command = training("lora(rank=2)", "1", "out", all);
    const std::string text = expect_success(command, {.environment = environment}).err;
    const std::size_t begin = text.find("threads: ");
    return begin == std::string::npos ? "" : text.substr(begin, text.find('\n', begin) - begin);
  }
};

TEST_F(TrainingThreads, AreSaidWhereTheProgramChooses) {
  const std::string chosen = said({"A=b"});
  const bool measured = chosen.find("since other programs use") != std::string::npos;
  const bool quiet = chosen.find("one per processor") != std::string::npos;
  EXPECT_EQ(measured || quiet, allowed_processors() > 1) << chosen;
  EXPECT_EQ(said({"OMP_NUM_THREADS=2"}), "");
  EXPECT_EQ(said({"A=b"}, {"--threads", "1"}), "");
}

}  // namespace
}  // namespace ringlet::e2e
