// Every system call of a save fails once, and from then on.
#include <cerrno>
#include <csignal>
#include <fstream>

#include <ATen/ops/ones.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/failpoint.h"
#include "ringlet/io/image.h"
#include "ringlet/io/tensor_file.h"
#include "tests/child_process.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/temporary_folder.h"

namespace ringlet {
namespace {

namespace fs = std::filesystem;

struct Fault {
  int error_number;
  bool persistent;
};

class AtomicFileFault : public testing::TestWithParam<Fault> {
 protected:
  ~AtomicFileFault() override { arm_failpoint("", 0); }

  /// Saves with the n-th system call failing, for n = 1, 2, … until a save succeeds; `save` writes
  /// to the path and `before` is its content so far, or nothing. Returns how many saves failed.
  template <class Save>
  int fail_every_call(const fs::path& path, const Save& save) {
    const bool existed = fs::exists(path);
    const std::string before = file_content(path);
    save(folder_ / "reference");
    const std::string complete = file_content(folder_ / "reference");
    fs::remove(folder_ / "reference");
    const std::size_t files = entry_count(folder_.path());
    for (int n = 1;; ++n) {
      SCOPED_TRACE("system call " + std::to_string(n));
      arm_failpoint("atomic_file", GetParam().error_number, n, GetParam().persistent);
      bool failed = false;
      try {
        save(path);
      } catch (const Error& error) {
        failed = true;
        check_error(error, file_content(path) == complete);
      }
      arm_failpoint("", 0);
      const std::string after = file_content(path);
      EXPECT_TRUE(after == complete || (failed && after == before && fs::exists(path) == existed));
      EXPECT_EQ(entry_count(folder_.path()), files + (fs::exists(path) && !existed ? 1 : 0));
      if (!failed) return n - 1;
      save(path);  // once the fault is gone, the next save works
      EXPECT_EQ(file_content(path), complete);
      existed ? write_file_atomically(path, before) : static_cast<void>(fs::remove(path));
    }
  }

  /// The error tells the kind of problem, and the truth about the target.
  static void check_error(const Error& error, bool replaced) {
    const bool full = GetParam().error_number == ENOSPC;
    EXPECT_EQ(error.code(), full ? ErrorCode::no_space : ErrorCode::io) << error.what();
    EXPECT_EQ(error.hint().find("unchanged") != std::string::npos, !replaced) << error.what();
    EXPECT_EQ(error.hint().find("new file is in place") != std::string::npos, replaced);
  }

  TemporaryFolder folder_;
};

/// open, write, flush, rename, then open and flush of the folder.
constexpr int kCallsOfASave = 6;

TEST_P(AtomicFileFault, ANewFileIsCompleteOrAbsent) {
  const int failed = fail_every_call(
      folder_ / "new", [](const fs::path& path) { write_file_atomically(path, "new content"); });
  EXPECT_EQ(failed, kCallsOfASave);
}

TEST_P(AtomicFileFault, AnOldFileIsReplacedOrUntouched) {
  write_file_atomically(folder_ / "old", "old content");
  const int failed = fail_every_call(
      folder_ / "old", [](const fs::path& path) { write_file_atomically(path, "new content"); });
  EXPECT_EQ(failed, kCallsOfASave);
}

TEST_P(AtomicFileFault, WeightsAreReplacedOrUntouched) {
  const auto save = [](const fs::path& path) {
    io::save_tensors(path, {{"a", at::ones({100})}, {"b", at::ones({3, 3}, at::kHalf)}});
  };
  io::save_tensors(folder_ / "w.safetensors", {{"old", at::ones({7})}});
  // Length, header and each tensor are written one after another.
  EXPECT_EQ(fail_every_call(folder_ / "w.safetensors", save), kCallsOfASave + 3);
  EXPECT_EQ(io::load_tensors(folder_ / "w.safetensors").size(), 2u);
}

TEST_P(AtomicFileFault, PicturesAreReplacedOrUntouched) {
  const io::Image image{2, 1, {1, 2, 3, 4, 5, 6}};
  fail_every_call(folder_ / "p.png", [&](const fs::path& path) {
    io::write_png(path, image, {{"parameters", "x"}});
  });
  EXPECT_EQ(io::read_image(folder_ / "p.png").pixels, image.pixels);
}

INSTANTIATE_TEST_SUITE_P(Errors, AtomicFileFault,
                         testing::Values(Fault{EIO, false}, Fault{EIO, true}, Fault{ENOSPC, false},
                                         Fault{ENOSPC, true}, Fault{EACCES, true}),
                         [](const auto& entry) {
                           const int code = entry.param.error_number;
                           return std::string(code == EIO      ? "Io"
                                              : code == ENOSPC ? "NoSpace"
                                                               : "Access") +
                                  (entry.param.persistent ? "ForEver" : "Once");
                         });

// A signal is no failure: whichever call it interrupts, the save goes through.
TEST(AtomicFileSignals, AnInterruptedCallIsRepeated) {
  const TemporaryFolder folder;
  for (int n = 1; n <= kCallsOfASave + 1; ++n) {
    write_file_atomically(folder / "a", "old");
    arm_failpoint("atomic_file", EINTR, n);
    EXPECT_NO_THROW(write_file_atomically(folder / "a", "new")) << n;
    arm_failpoint("", 0);
    EXPECT_EQ(file_content(folder / "a"), "new") << n;
    EXPECT_EQ(entry_count(folder.path()), 1u);
  }
}

// Network file systems cannot flush a folder; that must not fail every save there.
TEST(AtomicFileSignals, AFolderThatCannotBeFlushedIsAccepted) {
  const TemporaryFolder folder;
  for (const int error_number : {EINVAL, EROFS}) {
    arm_failpoint("atomic_file.fsync_folder", error_number);
    EXPECT_NO_THROW(write_file_atomically(folder / "a", "new"));
    arm_failpoint("", 0);
  }
}

void limit_file_size(rlim_t bytes) {
  rlimit limit{};
  getrlimit(RLIMIT_FSIZE, &limit);
  limit.rlim_cur = bytes;
  setrlimit(RLIMIT_FSIZE, &limit);
}

/// What the child of the next test finds wrong, or 0.
int fill_the_disk(const fs::path& folder) {
  ::signal(SIGXFSZ, SIG_IGN);
  write_file_atomically(folder / "a", "old");
  limit_file_size(5000);  // not a multiple of a block: the last write is a short one
  const std::string large(100000, 'x');
  try {
    write_file_atomically(folder / "a", large);
    return 1;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::no_space) return 2;
  }
  if (file_content(folder / "a") != "old") return 3;
  if (entry_count(folder) != 1) return 4;
  limit_file_size(RLIM_INFINITY);  // space returns
  write_file_atomically(folder / "a", large);
  return file_content(folder / "a") == large ? 0 : 5;
}

// The kernel's own short writes and errors, in a child because the limit is the process's.
TEST(AtomicFileLimits, AFullDiskLeavesTheOldFile) {
  const TemporaryFolder folder;
  EXPECT_EQ(status_of_child([&] { return fill_the_disk(folder.path()); }), 0);
}

}  // namespace
}  // namespace ringlet
