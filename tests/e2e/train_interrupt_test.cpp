// `ringlet train` is killed and stopped at any moment: --resume makes what an uninterrupted run
// makes.
#include <chrono>
#include <csignal>
#include <cstddef>

#include "ringlet/core/random.h"
#include "ringlet/train/checkpoint.h"
#include "ringlet/train/metrics_file.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/tiny_training.h"

namespace ringlet::e2e {
namespace {

using train::CheckpointFolder;
using train::MetricsRow;

constexpr int kSteps = 60;

class TrainInterrupted : public TinyProgram {
 protected:
  TrainInterrupted() {
    write_model("sd1");
    train::write_pictures(folder_ / "pictures");
  }

  /// The folder of a run; its last part is in the adapter's metadata.
  fs::path out(const std::string& name) const { return folder_ / name / "run"; }

  Arguments command(const std::string& name, const Arguments& more = {}) const {
    Arguments all = {"train",
                     "--model",
                     path("model"),
                     "--instance-images",
                     path("pictures"),
                     "--instance-prompt",
                     "a photo of a dog",
                     "--out",
                     out(name).string(),
                     "--method",
                     "trm(rank=2)+lora(rank=2)",
                     "--resolution",
                     "16",
                     "--steps",
                     std::to_string(kSteps),
                     "--ema",
                     "0.9",
                     "--caption-dropout",
                     "0.2",
                     "--flip",
                     "--sample-images",
                     "1",
                     "--sample-steps",
                     "1"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  std::size_t rows(const std::string& name) const {
    const fs::path file = out(name) / "metrics.csv";
    return fs::exists(file) ? train::read_metrics(file).size() : 0;
  }

  /// Adapter and metrics are those of the uninterrupted run.
  void expect_equal(const std::string& name, const std::string& whole) const {
    EXPECT_TRUE(read_bytes(out(name) / "adapter.safetensors") ==
                read_bytes(out(whole) / "adapter.safetensors"));
    const auto a = train::read_metrics(out(name) / "metrics.csv");
    const auto b = train::read_metrics(out(whole) / "metrics.csv");
    ASSERT_EQ(a.size(), static_cast<std::size_t>(kSteps));
    ASSERT_EQ(b.size(), a.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].step, static_cast<std::int64_t>(i) + 1);
      EXPECT_EQ(a[i].loss, b[i].loss) << "step " << i + 1;
      EXPECT_EQ(a[i].gradient_norm, b[i].gradient_norm) << "step " << i + 1;
    }
    for (const char* file : {"report.html", "samples/step-00000000.png"})
      EXPECT_TRUE(fs::exists(out(name) / file)) << file;
    for (const std::string& file : names_in(out(name) / "checkpoints"))
      EXPECT_TRUE(file.starts_with("step-")) << file;
  }
};

// Kills land in the start-up, in steps and, with a checkpoint after every one, often inside a save.
TEST_F(TrainInterrupted, KillsLoseNothing) {
  constexpr int kKills = 20;
  const Arguments more = {"--seed", "3", "--checkpoint-every", "1", "--resume", "--quiet"};
  expect_success(command("whole", more));
  int kills = 0, finished = 0;
  for (RandomStream random = Random(1).stream("instants"); kills < kKills;) {
    // From the start, or a moment after the first new step.
    const bool from_start = kills % 2 == 0;
    const std::size_t before = rows("parts");
    const double milliseconds = random.uniform() * (from_start ? 800.0 : 80.0);
    const ProgramResult result = run_program(
        command("parts", more),
        {.interrupt_when = [&] { return from_start || rows("parts") > before; },
         .signal = SIGKILL,
         .moment = std::chrono::microseconds(static_cast<std::int64_t>(milliseconds * 1000.0))});
    if (result.status == 0) {  // it was quicker: once more from the begin
      expect_equal("parts", "whole");
      fs::remove_all(out("parts"));
      ++finished;
      ASSERT_LT(finished, kKills);
      continue;
    }
    ASSERT_EQ(result.status, 128 + SIGKILL) << result.err;
    ++kills;
    if (const auto latest = CheckpointFolder(out("parts") / "checkpoints", 1).latest()) {
      // The rows of all steps that it counts are there.
      const train::TrainState state = CheckpointFolder::load(*latest);
      EXPECT_GE(rows("parts"), static_cast<std::size_t>(state.step));
    }
  }
  expect_success(command("parts", more));
  expect_equal("parts", "whole");
}

class TrainStopped : public TrainInterrupted, public testing::WithParamInterface<int> {};

// Also without --seed: the checkpoint knows the one that was drawn.
TEST_P(TrainStopped, ASignalSavesAndTheSameCommandGoesOn) {
  const ProgramResult stopped =
      run_program(command("parts"), {.interrupt_when = [&] { return rows("parts") > 4; },
                                     .signal = GetParam(),
                                     .moment = std::chrono::milliseconds(1)});
  EXPECT_EQ(stopped.status, 130) << stopped.err;
  EXPECT_NE(stopped.err.find("the same command with --resume goes on"), std::string::npos)
      << stopped.err;
  EXPECT_FALSE(fs::exists(out("parts") / "adapter.safetensors"));
  const auto latest = CheckpointFolder(out("parts") / "checkpoints", 1).latest();
  ASSERT_TRUE(latest);
  const train::TrainState state = CheckpointFolder::load(*latest);
  EXPECT_EQ(rows("parts"), static_cast<std::size_t>(state.step));  // no step is lost
  EXPECT_LT(state.step, kSteps);

  const ProgramResult resumed = expect_success(command("parts", {"--resume"}));
  EXPECT_NE(resumed.err.find("going on after step " + std::to_string(state.step)),
            std::string::npos)
      << resumed.err;
  expect_success(command("whole", {"--seed", state.settings.at("seed").dump()}));
  expect_equal("parts", "whole");
}

INSTANTIATE_TEST_SUITE_P(Signals, TrainStopped, testing::Values(SIGINT, SIGTERM),
                         [](const auto& entry) {
                           return entry.param == SIGINT ? "Interrupt" : "Terminate";
                         });

}  // namespace
}  // namespace ringlet::e2e
