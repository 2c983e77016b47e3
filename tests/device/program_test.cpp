// The program on the device: the verbs use the one that is asked for, and say what goes wrong
// there.
#include <cstdlib>
#include <string>

#include "ringlet/core/json.h"
#include "tests/device/simulated_device.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/tiny_training.h"

namespace ringlet::e2e {
namespace {

class ProgramOnDevice : public TinyProgram {
 protected:
  void SetUp() override {
    if (!device::present()) GTEST_SKIP() << "a real device";
    write_model("sd1");
    train::write_pictures(folder_ / "pictures");
  }

  /// The test's environment and these variables.
  static ProgramOptions with(const Arguments& variables) {
    Arguments all = detail::usual_environment();
    all.insert(all.end(), variables.begin(), variables.end());
    return {.environment = all};
  }

  Arguments train(const Arguments& more) const {
    Arguments all = {"--sample-images", "1", "--sample-steps", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return training("trm(rank=2)+lora(rank=2)", "2", "out", all);
  }

  Json report() const { return read_json_file(folder_ / "report.json"); }
  std::string report_variable() const { return "RINGLET_SIMULATED_REPORT=" + path("report.json"); }

  static void expect_words(const ProgramResult& result, const std::vector<std::string>& words) {
    for (const std::string& word : words)
      EXPECT_NE(result.err.find(word), std::string::npos) << word << " in\n" << result.err;
  }
};

TEST_F(ProgramOnDevice, TrainingUsesTheDeviceThatIsAskedForAndBf16) {
  const ProgramResult result = expect_success(
      train({"--device", "cuda:1"}), with({"RINGLET_SIMULATED_DEVICE=1", report_variable()}));
  expect_words(result, {"on cuda:1 in bf16", "peak memory"});
  const Json all = report();
  EXPECT_EQ(all.at("devices")[0].at("peak_bytes"), 0);
  EXPECT_GT(all.at("devices")[1].at("peak_bytes"), 0);
  EXPECT_EQ(all.at("current_bytes"), 0);
  EXPECT_GT(all.at("operators").at("_fused_adamw_."), 0);
}

TEST_F(ProgramOnDevice, AnOlderDeviceTrainsInFp16) {
  expect_words(expect_success(train({}), with({"RINGLET_SIMULATED_CAPABILITY=7"})),
               {"on cuda:0 in fp16"});
}

// What makes runs equal and what makes fp32 fast are options.
TEST_F(ProgramOnDevice, DeterminismAndTf32AreOptions) {
  expect_success(train({"--precision", "fp32", "--deterministic", "--tf32"}));
  for (const char* verb : {"train", "tune", "generate"}) {
    const std::string help = expect_success({verb, "--help"}).out;
    EXPECT_NE(help.find("--deterministic"), std::string::npos) << verb;
    EXPECT_NE(help.find("--tf32"), std::string::npos) << verb;
  }
}

TEST_F(ProgramOnDevice, TheEndOfTheDevicesMemoryIsSaidWithWhatToChange) {
  const ProgramResult result = run_program(train({}), with({"RINGLET_SIMULATED_MEMORY=3000000"}));
  EXPECT_EQ(result.status, exit_status(ErrorCode::out_of_memory)) << result.err;
  expect_words(result, {"the GPU has not enough free memory", "--gradient-checkpointing"});
}

TEST_F(ProgramOnDevice, GeneratingIsDoneThere) {
  expect_success({"generate", "--model", path("model"), "--prompt", "a dog", "--steps", "2",
                  "--seed", "1", "--width", "16", "--height", "16", "--out", path("picture.png")},
                 with({report_variable()}));
  EXPECT_GT(report().at("launches"), 100);
  EXPECT_EQ(report().at("double_launches"), 10);  // the start noise
}

TEST_F(ProgramOnDevice, DoctorNamesTheDeviceAndWhatAutoMeansThere) {
  const Json said = parse_json(expect_success({"doctor", "--json"}).out, "stdout");
  EXPECT_EQ(said.at("cuda").at("devices"), 2);
  EXPECT_EQ(said.at("cuda").at("compute_capability"), 8);
  EXPECT_EQ(said.at("auto").at("device"), "cuda:0");
  EXPECT_EQ(said.at("auto").at("precision"), "fp16");
  EXPECT_EQ(said.at("auto").at("training_precision"), "bf16");
}

}  // namespace
}  // namespace ringlet::e2e
