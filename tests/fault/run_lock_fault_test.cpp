// One process trains in a folder; the lock of a dead one holds nobody up.
#include <atomic>
#include <csignal>
#include <fstream>
#include <thread>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ringlet/train/run_lock.h"
#include "tests/expect_error.h"
#include "tests/file_content.h"
#include "tests/log_capture.h"
#include "tests/tiny_fine_tune_test.h"

namespace ringlet::train {
namespace {

namespace fs = std::filesystem;

/// A process that does this and waits to be killed.
template <class Work>
class Child {
 public:
  explicit Child(const Work& work) {
    EXPECT_EQ(::pipe(ready_), 0);
    process_ = ::fork();
    if (process_ == 0) {
      work([&] { static_cast<void>(::write(ready_[1], "x", 1)); });
      ::_exit(0);
    }
    ::close(ready_[1]);
    char byte = 0;
    EXPECT_EQ(::read(ready_[0], &byte, 1), 1);
  }
  ~Child() { end(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t process() const { return process_; }
  void end() {
    if (process_ <= 0) return;
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
    ::close(ready_[0]);
    process_ = 0;
  }

 private:
  int ready_[2] = {};
  pid_t process_ = 0;
};

class RunLocks : public FineTuning {};

TEST_F(RunLocks, TheSecondIsRefusedWithWhoHoldsIt) {
  const fs::path out = folder_ / "run";
  EXPECT_EQ(RunLock::holder(out), "");
  EXPECT_FALSE(fs::exists(out));  // looking makes nothing
  Child first([&](const auto& ready) {
    const RunLock lock(out);
    ready();
    ::pause();
  });
  const std::string who = "process " + std::to_string(first.process()) + " on ";
  expect_error(ErrorCode::invalid_argument, who, [&] { const RunLock second(out); });
  expect_error(ErrorCode::invalid_argument, who, [&] { RunLock::refuse_held(out); });
  EXPECT_EQ(RunLock::holder(out).find(who), 0u) << RunLock::holder(out);
  first.end();  // killed: nobody has tidied up
  const LogCapture log;
  const RunLock next(out);
  ASSERT_EQ(log.messages().size(), 1u);
  EXPECT_NE(log.messages()[0].second.find(who), std::string::npos);
  EXPECT_NE(log.messages()[0].second.find("taken over"), std::string::npos);
}

// What is in the file does not count: a number that another process has now holds nobody up.
TEST_F(RunLocks, TheFileAloneIsNoLock) {
  const fs::path out = folder_ / "run";
  fs::create_directories(out);
  std::ofstream(out / "run.lock") << "process " << ::getpid() << " on here since today";
  EXPECT_EQ(RunLock::holder(out), "");
  { const RunLock lock(out); }
  const LogCapture log;
  const RunLock again(out);
  EXPECT_TRUE(log.messages().empty());  // the last one has given it back
}

TEST_F(RunLocks, OfManyAtOnceExactlyOneHasIt) {
  constexpr int kRaces = 20, kRunners = 4;
  for (int race = 0; race < kRaces; ++race) {
    const fs::path out = folder_ / std::to_string(race);
    std::atomic<int> waiting = 0, have = 0, refused = 0;
    const auto meet = [&](int count) {
      ++waiting;
      while (waiting < count) std::this_thread::yield();
    };
    std::vector<std::thread> runners;
    for (int i = 0; i < kRunners; ++i)
      runners.emplace_back([&] {
        meet(kRunners);
        try {
          RunLock::refuse_held(out);
          const RunLock lock(out);
          ++have;
          meet(2 * kRunners);
        } catch (const Error&) {
          ++refused;
          meet(2 * kRunners);
        }
      });
    for (std::thread& runner : runners) runner.join();
    EXPECT_EQ(have, 1) << race;
    EXPECT_EQ(refused, kRunners - 1) << race;
  }
}

// Both have made their plan before one begins.
TEST_F(RunLocks, OfTwoRunsOnAFolderOneTrains) {
  const FineTuneOptions o = options();
  FineTune first(o), second(o);
  const auto during = [&](const StepResult& step) {
    if (step.step == 1) {
      expect_error(ErrorCode::invalid_argument, "is in use", [&] { FineTune third(o); });
      expect_error(ErrorCode::invalid_argument, "is in use", [&] { second.run({}); });
    }
    return true;
  };
  EXPECT_TRUE(first.run({.progress = {}, .step = during}));
  // And when the first one is through, its run is not begun again.
  expect_error(ErrorCode::invalid_argument, "holds a training run", [&] { second.run({}); });
  EXPECT_EQ(metrics(o).size(), 3u);
}

// What happened after the plan counts: the checkpoint is that of the moment in which it begins.
TEST_F(RunLocks, ARunThatWaitedGoesOnFromWhereTheOtherOneStopped) {
  FineTuneOptions whole = options("whole/run"), o = options("parts/run");
  EXPECT_TRUE(run(whole));
  EXPECT_FALSE(run(o, 1));
  o.resume = true;
  FineTune early(o), later(o);
  EXPECT_FALSE(early.run({.progress = {}, .step = [](const StepResult& s) { return s.step < 2; }}));
  std::int64_t first = 0;
  EXPECT_TRUE(later.run({.progress = {}, .step = [&](const StepResult& s) {
                           if (first == 0) first = s.step;
                           return true;
                         }}));
  EXPECT_EQ(first, 3);
  expect_same_metrics(o, whole);
}

}  // namespace
}  // namespace ringlet::train
