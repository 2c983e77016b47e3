// A run is killed again and again, at random instants and inside of its saves; it ends with what an
// uninterrupted run makes. RINGLET_KILLS=500 kills it so often.
#include <chrono>
#include <csignal>
#include <thread>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ringlet/core/random.h"
#include "tests/fault/calls/fault_calls.h"
#include "tests/file_content.h"
#include "tests/kill_count.h"
#include "tests/log_capture.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kLength = 12;  ///< steps of a run

class Killed : public FineTuning {
 protected:
  FineTuneOptions killed_options(const std::string& out) const {
    FineTuneOptions o = options(out);
    o.trainer.steps = kLength;
    o.trainer.checkpoint_every = 1;
    o.trainer.ema_decay = 0.9;
    o.trainer.gradient_accumulation = 2;
    o.loss.caption_dropout = 0.2;
    o.crop.flip = true;
    o.samples.prompts = {"a dog"};
    o.resume = true;
    return o;
  }

  /// Trains in a child that the n-th call of its saves kills, or when that is 0 the parent after a
  /// while. Returns whether it was killed.
  bool train_and_kill(const FineTuneOptions& o, int nth, std::chrono::microseconds patience) const {
    const pid_t child = ::fork();
    if (child == 0) {
      at::set_num_threads(1);
      if (nth > 0) faults::arm({(o.out / "checkpoints").string(), nth, faults::Action::kill});
      int status = 1;
      try {
        status = run(o) ? 0 : 2;
      } catch (...) {  // the exit status tells
      }
      ::_exit(status);
    }
    if (nth == 0) {
      std::this_thread::sleep_for(patience);
      ::kill(child, SIGKILL);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) return true;
    EXPECT_EQ(WEXITSTATUS(status), 0);
    return false;
  }

  /// What the last checkpoint counts as done is in metrics.csv; it loads, and no step is lost but
  /// those after it.
  static std::int64_t check_after_a_kill(const FineTuneOptions& o, std::int64_t before) {
    const auto latest = CheckpointFolder(o.out / "checkpoints", 2).latest();
    const std::int64_t step = latest ? CheckpointFolder::load(*latest).step : 0;
    EXPECT_GE(step, before);
    if (step > 0) {
      EXPECT_GE(metrics(o).size(), static_cast<std::size_t>(step));
    }
    return step;
  }
};

TEST_F(Killed, AnywhereTheRunEndsWithWhatItWouldHaveMade) {
  const FineTuneOptions whole = killed_options("whole/run"), parts = killed_options("parts/run");
  const auto begin = std::chrono::steady_clock::now();
  faults::record((whole.out / "checkpoints").string());
  EXPECT_TRUE(run(whole));
  const auto calls_of_a_save = static_cast<std::uint64_t>(faults::calls() / kLength);
  faults::recorded();
  const auto length = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - begin);
  const std::string expected = file_content(whole.out / "adapter.safetensors");
  const int kills = kill_count(21);
  int done = 0, inside = 0, finished = 0;
  std::int64_t before = 0;
  const LogCapture quiet;
  for (RandomStream random = Random(11).stream("instants"); done < kills;) {
    const bool in_a_save = done % 3 != 0;
    const int nth = in_a_save ? 1 + static_cast<int>(random.uniform_int(3 * calls_of_a_save)) : 0;
    const auto patience = std::chrono::microseconds(
        random.uniform_int(static_cast<std::uint64_t>(length.count()) + 1));
    if (train_and_kill(parts, nth, patience)) {
      ++done;
      inside += in_a_save ? 1 : 0;
      before = check_after_a_kill(parts, before);
    }
    if (!fs::exists(parts.out / "adapter.safetensors")) continue;
    ++finished;  // once more from the beginning
    if (fs::exists(parts.out / "report.html")) {
      EXPECT_TRUE(file_content(parts.out / "adapter.safetensors") == expected);
      expect_same_metrics(parts, whole);
    }
    fs::remove_all(parts.out);
    before = 0;
  }
  EXPECT_TRUE(run(parts));
  EXPECT_TRUE(file_content(parts.out / "adapter.safetensors") == expected);
  expect_same_metrics(parts, whole);
  EXPECT_GE(3 * inside, kills);
  EXPECT_GE(8 * finished, kills / 3) << "the run does not come on";
  RecordProperty("kills", done);
  RecordProperty("calls_of_a_save", static_cast<int>(calls_of_a_save));
  RecordProperty("kills_inside_a_save", inside);
  RecordProperty("runs_that_came_to_their_end", finished);
}

}  // namespace
}  // namespace ringlet::train
