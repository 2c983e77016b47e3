// `ringlet train` is killed and stopped at any moment: --resume makes what an uninterrupted run
// makes.
#include <chrono>
#include <csignal>
#include <cstddef>
#include <iterator>
#include <utility>

#include "ringlet/core/random.h"
#include "ringlet/train/checkpoint.h"
#include "ringlet/train/metrics_file.h"
#include "tests/e2e/tiny_program_test.h"
#include "tests/kill_count.h"
#include "tests/tiny_training.h"

namespace ringlet::e2e {
namespace {

using train::CheckpointFolder;
using train::MetricsRow;

constexpr int kSteps = 60;

/// A moment at which the program is killed.
enum class Instant {
  after_the_start,  ///< up to a second: loading, encoding, first steps
  between_steps,    ///< up to some steps after the first new one
  inside_a_save,    ///< at one of the system calls of a save (tests/fault/calls)
};
constexpr Instant kInstants[] = {Instant::after_the_start, Instant::inside_a_save,
                                 Instant::between_steps, Instant::inside_a_save};

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

  fs::path checkpoints(const std::string& name) const { return out(name) / "checkpoints"; }

  /// Starts the program and kills it, unless it is quicker.
  ProgramResult run_and_kill(const std::string& name, const Arguments& more, Instant instant,
                             RandomStream& random) const {
    ProgramOptions how{.signal = SIGKILL};
    const auto up_to = [&](double milliseconds) {
      return std::chrono::microseconds(
          static_cast<std::int64_t>(random.uniform() * milliseconds * 1000.0));
    };
    if (instant == Instant::inside_a_save) {
      constexpr std::size_t kCallsOfThreeSaves = 2000;
      how.environment = detail::usual_environment();
      how.environment->insert(
          how.environment->end(),
          {"LD_PRELOAD=" RINGLET_FAULT_CALLS, "RINGLET_FAULT_ACTION=kill",
           "RINGLET_FAULT_FOLDER=" + checkpoints(name).string(),
           "RINGLET_FAULT_NTH=" + std::to_string(1 + random.uniform_int(kCallsOfThreeSaves))});
    } else {
      const std::size_t before = instant == Instant::between_steps ? rows(name) : 0;
      how.interrupt_when = [this, name, instant, before] {
        return instant == Instant::after_the_start || rows(name) > before;
      };
      how.moment = up_to(instant == Instant::after_the_start ? 800.0 : 80.0);
      how.pause = std::chrono::microseconds(100);
    }
    return run_program(command(name, more), how);
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

TEST_F(TrainInterrupted, KillsLoseNothing) {
  const int asked = kill_count(24);
  const Arguments more = {"--seed", "3", "--checkpoint-every", "1", "--resume", "--quiet"};
  expect_success(command("whole", more));
  int kills = 0, finished = 0, inside = 0;
  for (RandomStream random = Random(1).stream("instants"); kills < asked;) {
    const Instant instant = kInstants[static_cast<std::size_t>(kills) % std::size(kInstants)];
    const ProgramResult result = run_and_kill("parts", more, instant, random);
    if (result.status == 0) {  // it was quicker: once more from the begin
      expect_equal("parts", "whole");
      fs::remove_all(out("parts"));
      ++finished;
      ASSERT_LE(finished, asked);
      continue;
    }
    ASSERT_EQ(result.status, 128 + SIGKILL) << result.err;
    ++kills;
    inside += instant == Instant::inside_a_save ? 1 : 0;
    // The newest checkpoint can be read, and the rows of all steps that it counts are there.
    const auto latest = CheckpointFolder(checkpoints("parts"), 1).latest();
    const std::int64_t step = latest ? CheckpointFolder::load(*latest).step : 0;
    EXPECT_GE(rows("parts"), static_cast<std::size_t>(step));
  }
  EXPECT_GE(3 * inside, kills);
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
  EXPECT_NE(stopped.err.find("run the same command with --resume to continue"), std::string::npos)
      << stopped.err;
  EXPECT_FALSE(fs::exists(out("parts") / "adapter.safetensors"));
  const auto latest = CheckpointFolder(out("parts") / "checkpoints", 1).latest();
  ASSERT_TRUE(latest);
  const train::TrainState state = CheckpointFolder::load(*latest);
  EXPECT_EQ(rows("parts"), static_cast<std::size_t>(state.step));  // no step is lost
  EXPECT_LT(state.step, kSteps);

  const ProgramResult resumed = expect_success(command("parts", {"--resume"}));
  EXPECT_NE(resumed.err.find("resuming after step " + std::to_string(state.step)),
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
