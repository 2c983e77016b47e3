// `ringlet train` is killed and stopped at any moment: --resume makes what an uninterrupted run
// makes.
#include <chrono>
#include <csignal>
#include <cstddef>
#include <functional>

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

/// A moment at which the program is killed.
enum class Instant {
  after_the_start,       ///< up to a second: loading, encoding, first steps
  between_steps,         ///< up to some steps after the first new one
  inside_a_save,         ///< its temporary file is there
  right_after_a_rename,  ///< the new checkpoint is there, and nothing that follows it
};
constexpr int kInstants = 4;

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

  /// Whether a save's temporary file is there.
  bool unfinished_save(const std::string& name) const {
    std::error_code problem;
    for (const auto& entry : fs::directory_iterator(checkpoints(name), problem))
      if (entry.path().filename().string().starts_with(".step-")) return true;
    return false;
  }

  /// Says when the program, which is about to start, has come that far.
  std::function<bool()> reached(const std::string& name, Instant instant) const {
    const auto before = CheckpointFolder(checkpoints(name), 1).latest();
    const std::size_t rows_before = rows(name);
    return [this, name, instant, before, rows_before] {
      if (instant == Instant::after_the_start) return true;
      if (instant == Instant::between_steps) return rows(name) > rows_before;
      const auto latest = CheckpointFolder(checkpoints(name), 1).latest();
      if (latest == before) return false;
      return instant == Instant::right_after_a_rename || unfinished_save(name);
    };
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
  constexpr int kKills = 24;
  const Arguments more = {"--seed", "3", "--checkpoint-every", "1", "--resume", "--quiet"};
  expect_success(command("whole", more));
  int kills = 0, finished = 0, inside = 0;
  for (RandomStream random = Random(1).stream("instants"); kills < kKills;) {
    const auto instant = static_cast<Instant>(kills % kInstants);
    const double milliseconds = random.uniform() * (instant == Instant::after_the_start ? 800.0
                                                    : instant == Instant::between_steps ? 80.0
                                                                                        : 0.0);
    const ProgramResult result = run_program(
        command("parts", more),
        {.interrupt_when = reached("parts", instant),
         .signal = SIGKILL,
         .moment = std::chrono::microseconds(static_cast<std::int64_t>(milliseconds * 1000.0)),
         .pause = std::chrono::microseconds(100)});
    if (result.status == 0) {  // it was quicker: once more from the begin
      expect_equal("parts", "whole");
      fs::remove_all(out("parts"));
      ++finished;
      ASSERT_LT(finished, kKills);
      continue;
    }
    ASSERT_EQ(result.status, 128 + SIGKILL) << result.err;
    ++kills;
    inside += unfinished_save("parts") ? 1 : 0;
    // The newest checkpoint can be read, and the rows of all steps that it counts are there.
    const auto latest = CheckpointFolder(checkpoints("parts"), 1).latest();
    const std::int64_t step = latest ? CheckpointFolder::load(*latest).step : 0;
    EXPECT_GE(rows("parts"), static_cast<std::size_t>(step));
  }
  RecordProperty("kills_inside_a_save", inside);
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
