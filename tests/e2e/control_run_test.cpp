// `ringlet control-run` and the run that it steers, as two programs.
#include <csignal>
#include <thread>

#include "ringlet/train/metrics_file.h"
#include "ringlet/train/run_lock.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/tiny_training.h"

namespace ringlet::e2e {
namespace {

class ControlRun : public TinyProgram {
 protected:
  ControlRun() {
    write_model("sd1");
    train::write_pictures(folder_ / "pictures");
  }
  std::size_t rows() const {
    const fs::path file = folder_ / "run/metrics.csv";
    return fs::exists(file) ? train::read_metrics(file).size() : 0;
  }
};

TEST_F(ControlRun, ARunIsWatchedSavedAndStopped) {
  const Arguments training = this->training("lora(rank=2)", "100000", "run", {"--quiet"});
  ProgramResult stopped;
  std::thread program([&] { stopped = run_program(training); });
  while (rows() < 3) std::this_thread::sleep_for(std::chrono::milliseconds(10));

  const ProgramResult status = expect_success({"control-run", path("run"), "status"});
  EXPECT_NE(status.out.find("running: process "), std::string::npos) << status.out;
  // A second one in the folder is refused with who is there, whether it resumes or not.
  for (const Arguments& more : {Arguments{}, Arguments{"--resume"}}) {
    const ProgramResult second = run_program(this->training("lora(rank=2)", "5", "run", more));
    EXPECT_EQ(second.status, 2) << second.err;
    EXPECT_NE(second.err.find("is in use: process "), std::string::npos) << second.err;
  }
  const ProgramResult saved = expect_success({"control-run", path("run"), "save"});
  EXPECT_NE(saved.out.find("save: step-"), std::string::npos) << saved.out;
  const ProgramResult sampled =
      expect_success({"control-run", path("run"), "sample", "--json", "--wait", "300"});
  EXPECT_NE(sampled.out.find("sample: sample pictures"), std::string::npos) << sampled.out;
  const ProgramResult told = expect_success({"control-run", path("run"), "stop"});
  EXPECT_NE(told.out.find("stop: step-"), std::string::npos) << told.out;
  program.join();
  EXPECT_EQ(stopped.status, 130) << stopped.err;
  EXPECT_NE(stopped.err.find("--resume"), std::string::npos) << stopped.err;

  const ProgramResult after = expect_success({"control-run", path("run"), "status"});
  EXPECT_EQ(after.out.find("not running\n"), 0u) << after.out;
  const ProgramResult nobody = run_program({"control-run", path("run"), "save"});
  EXPECT_NE(nobody.err.find("nobody is training in this folder"), std::string::npos) << nobody.err;
  const ProgramResult word = run_program({"control-run", path("run"), "sav"});
  EXPECT_NE(word.err.find("save"), std::string::npos) << word.err;
  EXPECT_EQ(word.status, 2) << word.err;
}

}  // namespace
}  // namespace ringlet::e2e
