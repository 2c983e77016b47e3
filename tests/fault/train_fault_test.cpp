// System calls of a training run fail: the earlier checkpoint stays, and the run can go on.
#include <cerrno>
#include <csignal>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "ringlet/core/failpoint.h"
#include "tests/child_process.h"
#include "tests/expect_error.h"
#include "tests/fault/toy_saving_run.h"
#include "tests/file_content.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

/// Goes on from the newest checkpoint, which must be that of `step`, to the end.
void expect_resumes(const fs::path& folder, std::int64_t step) {
  const auto latest = CheckpointFolder(folder, 1).latest();
  ASSERT_TRUE(latest);
  const ToySavingRun run(folder);
  Trainer trainer = run.make();
  trainer.resume(*latest);
  EXPECT_EQ(trainer.steps_done(), step);
  EXPECT_TRUE(trainer.run());
  EXPECT_TRUE(same_bits(values_of(run.parameters), toy_result()));
  EXPECT_EQ(entry_count(folder), 4u);  // with their hashes, and no temporary file
}

struct Fault {
  const char* name;
  int error_number;
  bool persistent;
};

class TrainStateFault : public testing::TestWithParam<Fault> {
 protected:
  ~TrainStateFault() override { arm_failpoint("", 0); }
  TemporaryFolder folder_;
};

// The n-th system call of the third save fails, for n = 1, 2, … until none is left.
TEST_P(TrainStateFault, EveryFailingCallLeavesACheckpointThatGoesOn) {
  for (int n = 1;; ++n) {
    SCOPED_TRACE("system call " + std::to_string(n));
    const fs::path folder = folder_ / std::to_string(n);
    const ToySavingRun run(folder);
    Trainer trainer = run.make();
    bool failed = false;
    try {
      trainer.run([&](const StepResult& report) {
        if (report.step == 3)
          arm_failpoint("atomic_file", GetParam().error_number, n, GetParam().persistent);
        return report.step != 3;  // saves, too
      });
    } catch (const Error& error) {
      failed = true;
      const bool full = GetParam().error_number == ENOSPC;
      EXPECT_EQ(error.code(), full ? ErrorCode::no_space : ErrorCode::io) << error.what();
      const std::string text = error.what();
      EXPECT_TRUE(text.find("step-00000003") != std::string::npos ||
                  text.find(folder.string()) != std::string::npos)
          << text;
    }
    arm_failpoint("", 0);
    if (!failed) {
      EXPECT_GT(n, 6);
      return;
    }
    // The rename is the last call but two: from then on the new checkpoint is in place.
    const bool renamed = fs::exists(folder / "step-00000003.safetensors");
    EXPECT_TRUE(renamed || fs::exists(folder / "step-00000002.safetensors"));
    expect_resumes(folder, renamed ? 3 : 2);
  }
}

INSTANTIATE_TEST_SUITE_P(Errors, TrainStateFault,
                         testing::Values(Fault{"IoOnce", EIO, false}, Fault{"IoForEver", EIO, true},
                                         Fault{"NoSpaceOnce", ENOSPC, false},
                                         Fault{"NoSpaceForEver", ENOSPC, true}),
                         [](const auto& entry) { return entry.param.name; });

TEST_P(TrainStateFault, TheSameTrainerCanGoOnAfterwards) {
  const ToySavingRun run(folder_.path());
  Trainer trainer = run.make();
  arm_failpoint("atomic_file.fsync", GetParam().error_number, 1, GetParam().persistent);
  EXPECT_THROW(trainer.run(), Error);
  arm_failpoint("", 0);
  EXPECT_FALSE(CheckpointFolder(folder_.path(), 1).latest());
  EXPECT_TRUE(trainer.run());
  EXPECT_TRUE(same_bits(values_of(run.parameters), toy_result()));
}

/// What the child of the next test finds wrong, or 0.
int fill_the_disk(const fs::path& folder) {
  ::signal(SIGXFSZ, SIG_IGN);
  const ToySavingRun run(folder);
  Trainer trainer = run.make();
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  try {
    trainer.run([&](const StepResult& report) {
      limit.rlim_cur = 3000;  // less than a checkpoint
      if (report.step == 3) ::setrlimit(RLIMIT_FSIZE, &limit);
      return true;
    });
    return 1;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::no_space) return 2;
  }
  limit.rlim_cur = RLIM_INFINITY;  // space returns
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const auto latest = CheckpointFolder(folder, 1).latest();
  if (!latest || CheckpointFolder::load(*latest).step != 2) return 3;
  const ToySavingRun next(folder);
  Trainer resumed = next.make();
  resumed.resume(*latest);
  if (!resumed.run()) return 4;
  return same_bits(values_of(next.parameters), toy_result()) ? 0 : 5;
}

// The kernel's own errors, in a child because the limit is the process's.
TEST(TrainStateLimits, AFullDiskLeavesTheEarlierCheckpoint) {
  const TemporaryFolder folder;
  toy_result();
  EXPECT_EQ(status_of_child([&] { return fill_the_disk(folder.path()); }), 0);
}

/// Whole runs in which one kind of write fails.
class TrainingRunFault : public FineTuning {
 protected:
  ~TrainingRunFault() override { arm_failpoint("", 0); }

  FineTuneOptions saving(const std::string& name) const {
    FineTuneOptions o = options(name + "/run");
    o.trainer.steps = 4;
    o.trainer.checkpoint_every = 2;
    return o;
  }

  /// Arms the failpoint at a step; the run must fail, and going on must make what `whole` made.
  void expect_goes_on(const std::string& name, std::int64_t step, const char* failpoint, int nth,
                      const char* words) const {
    SCOPED_TRACE(words);
    FineTuneOptions o = saving(name);
    expect_error(ErrorCode::no_space, words, [&] {
      FineTune(o).run({.progress = {}, .step = [&](const StepResult& report) {
                         if (report.step == step) arm_failpoint(failpoint, ENOSPC, nth, true);
                         return true;
                       }});
    });
    arm_failpoint("", 0);
    EXPECT_FALSE(fs::exists(o.out / "adapter.safetensors"));
    o.resume = true;
    EXPECT_TRUE(run(o));
    const FineTuneOptions whole = saving("whole");
    expect_same_metrics(o, whole);
    EXPECT_EQ(file_content(o.out / "adapter.safetensors"),
              file_content(whole.out / "adapter.safetensors"));
  }
};

TEST_F(TrainingRunFault, WhateverCannotBeWrittenTheRunGoesOn) {
  run(saving("whole"));
  expect_goes_on("metrics", 2, "append_file.write", 1, "metrics.csv");
  expect_goes_on("events", 2, "append_file.write", 2, "tfevents");
  expect_goes_on("flush", 1, "append_file.fsync", 1, "flush");
  expect_goes_on("checkpoint", 2, "atomic_file.write", 1, "step-00000002");
  expect_goes_on("last", 4, "atomic_file.rename", 1, "step-00000004");
}

// The disk is full when the last checkpoint has been written: it is all that the result needs.
TEST_F(TrainingRunFault, AResultThatCannotBeWrittenIsMadeByResume) {
  run(saving("whole"));
  FineTuneOptions o = saving("parts");
  o.samples.prompts = {};
  // Renames after the last step: the checkpoint's hash, checkpoint, samples, adapter.
  expect_error(ErrorCode::no_space, "adapter.safetensors", [&] {
    FineTune(o).run({.progress = {}, .step = [&](const StepResult& report) {
                       if (report.step == 4) arm_failpoint("atomic_file.rename", ENOSPC, 4);
                       return true;
                     }});
  });
  arm_failpoint("", 0);
  EXPECT_FALSE(fs::exists(o.out / "adapter.safetensors"));
  o.resume = true;
  EXPECT_TRUE(run(o));
  EXPECT_EQ(file_content(o.out / "adapter.safetensors"),
            file_content(saving("whole").out / "adapter.safetensors"));
}

// Pictures are for people: a run is not ended by one that cannot be written.
TEST_F(TrainingRunFault, ASamplePictureThatCannotBeWrittenIsAWarning) {
  const FineTuneOptions o = saving("run");
  EXPECT_TRUE(FineTune(o).run({.progress = {}, .step = [&](const StepResult& report) {
                                 if (report.step == 4) arm_failpoint("atomic_file.rename", EIO, 3);
                                 return true;
                               }}));
  EXPECT_FALSE(fs::exists(o.out / "samples/step-00000004.png"));
  EXPECT_TRUE(fs::exists(o.out / "adapter.safetensors"));
}

}  // namespace
}  // namespace ringlet::train
