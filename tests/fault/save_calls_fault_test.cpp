// The system calls of a save fail one after another, and a disk is full: the calls themselves are
// exchanged (tests/fault/calls), so that nothing of the code under test knows.
#include <cerrno>
#include <set>
#include <string>

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "ringlet/core/append_file.h"
#include "tests/child_process.h"
#include "tests/expect_error.h"
#include "tests/fault/calls/fault_calls.h"
#include "tests/fault/toy_saving_run.h"
#include "tests/file_content.h"
#include "tests/temporary_folder.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;
using faults::Action;

struct CallFault {
  const char* name;
  int error_number;  ///< 0 = a short write
  bool persistent;
};

class SaveCalls : public testing::TestWithParam<CallFault> {
 protected:
  ~SaveCalls() override { faults::disarm(); }

  /// Trains three steps; the n-th call of the third save fails. Says whether the save has.
  bool failing_save(const fs::path& folder, int n) const {
    const CallFault fault = GetParam();
    const ToySavingRun run(folder);
    Trainer trainer = run.make();
    try {
      trainer.run([&](const StepResult& step) {
        if (step.step == 3)
          faults::arm({folder.string(), n,
                       fault.error_number == 0 ? Action::short_write : Action::fail,
                       fault.error_number, fault.persistent});
        return step.step != 3;
      });
    } catch (const Error& error) {
      const bool full = fault.error_number == ENOSPC;
      EXPECT_EQ(error.code(), full ? ErrorCode::no_space : ErrorCode::io) << error.what();
      EXPECT_NE(std::string(error.what()).find(folder.string()), std::string::npos);
      return true;
    }
    return false;
  }

  static void expect_no_temporary_files(const fs::path& folder) {
    for (const auto& entry : fs::directory_iterator(folder))
      EXPECT_TRUE(entry.path().filename().string().starts_with("step-")) << entry.path();
    EXPECT_EQ(entry_count(folder), 4u);  // two checkpoints with their hashes
  }

  TemporaryFolder folder_;
};

TEST_P(SaveCalls, TheNthFailsAndACheckpointGoesOn) {
  toy_result();
  bool reached_the_end = false;
  for (int n = 1; !reached_the_end; ++n) {
    SCOPED_TRACE("system call " + std::to_string(n));
    ASSERT_LT(n, 100);
    const fs::path folder = folder_ / std::to_string(n);
    const bool failed = failing_save(folder, n);
    reached_the_end = faults::calls() < n;
    faults::disarm();
    const bool harmless = GetParam().error_number == EINTR || GetParam().error_number == 0;
    EXPECT_FALSE(failed && (harmless || reached_the_end));
    const std::int64_t step = resume_toy(folder);
    EXPECT_TRUE(step == 3 || (failed && step == 2)) << step;
    expect_no_temporary_files(folder);
    // Opens, writes, flushes and renames of two files, their folder, and what was too old.
    if (reached_the_end) {
      EXPECT_GE(n, 16);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Errors, SaveCalls,
                         testing::Values(CallFault{"IoOnce", EIO, false},
                                         CallFault{"IoForEver", EIO, true},
                                         CallFault{"NoSpaceOnce", ENOSPC, false},
                                         CallFault{"NoSpaceForEver", ENOSPC, true},
                                         CallFault{"Interrupted", EINTR, false},
                                         CallFault{"ShortWriteOnce", 0, false},
                                         CallFault{"ShortWritesForEver", 0, true}),
                         [](const auto& entry) { return entry.param.name; });

/// What the child of the next test finds wrong; kNoMount where nobody may mount.
constexpr int kNoMount = 77;

int fill_a_small_disk(const fs::path& folder) {
  fs::create_directories(folder);
  if (::unshare(CLONE_NEWNS) != 0 || ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=28k") != 0)
    return kNoMount;
  const ToySavingRun run(folder / "checkpoints");
  Trainer trainer = run.make();
  try {
    trainer.run();
    return 1;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::no_space) return 2;
  }
  const auto latest = CheckpointFolder(folder / "checkpoints", 2).latest();
  if (!latest || CheckpointFolder::load(*latest).step != trainer.steps_done() - 1) return 3;
  if (::mount("tmpfs", folder.c_str(), "tmpfs", MS_REMOUNT, "size=1m") != 0) return 4;
  return resume_toy(folder / "checkpoints") == trainer.steps_done() - 1 ? 0 : 5;
}

TEST(SmallDisk, AFullOneLeavesTheCheckpointAndTheRunGoesOnWhenThereIsSpace) {
  const TemporaryFolder folder;
  toy_result();
  const int status = status_of_child([&] { return fill_a_small_disk(folder / "disk"); });
  if (status == kNoMount)
    GTEST_SKIP() << "may not mount; AtomicFileLimits and TrainStateLimits limit file sizes";
  EXPECT_EQ(status, 0);
}

TEST(SmallDisk, ARecordThatDoesNotFitIsAnErrorOfSpace) {
  AppendFile file("/dev/full");
  expect_error(ErrorCode::no_space, "/dev/full", [&] { file.append("a row\n"); });
}

}  // namespace
}  // namespace ringlet::train
