#include "ringlet/train/thread_choice.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "ringlet/core/processors.h"

namespace ringlet::train {
namespace {

/// Restores LibTorch's own number.
class ThreadChoiceTest : public testing::Test {
 protected:
  ~ThreadChoiceTest() override { at::set_num_threads(before_); }

 private:
  int before_ = at::get_num_threads();
};

/// A pass that takes so long with one, two, three and four threads.
std::function<void()> takes(std::vector<int> milliseconds) {
  return [milliseconds] {
    const auto index = static_cast<std::size_t>(at::get_num_threads() - 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds.at(index)));
  };
}

TEST_F(ThreadChoiceTest, OnAQuietMachineNothingIsMeasured) {
  int passes = 0;
  const ThreadChoice choice = choose_threads(4, 0.1, [&] { ++passes; });
  EXPECT_EQ(choice.threads, 4);
  EXPECT_EQ(at::get_num_threads(), 4);
  EXPECT_EQ(passes, 0);
  EXPECT_EQ(choice.text(), "4, one per processor (other programs use 0.1)");
}

TEST_F(ThreadChoiceTest, BesideOtherProgramsTheFastestIsTaken) {
  EXPECT_EQ(choose_threads(2, 2.0, takes({5, 20})).threads, 1);
  EXPECT_EQ(at::get_num_threads(), 1);
  EXPECT_EQ(choose_threads(2, 2.0, takes({20, 5})).threads, 2);
  EXPECT_EQ(at::get_num_threads(), 2);
  // What is free is tried as well as halves.
  EXPECT_EQ(choose_threads(4, 1.0, takes({40, 30, 5, 20})).threads, 3);
  const ThreadChoice two = choose_threads(4, 4.0, takes({20, 5, 40, 30}));
  EXPECT_EQ(two.threads, 2);
  EXPECT_EQ(two.measured.size(), 3u);
  EXPECT_EQ(
      two.text().find("2 of 4, since other programs use 4.0 processors: a pass takes 0.03 s "), 0u)
      << two.text();
}

TEST(Processors, BusyLiesBetweenNoneAndAll) {
  EXPECT_GE(allowed_processors(), 1);
  const double busy = busy_processors(std::chrono::milliseconds(30));
  EXPECT_GE(busy, 0.0);
  EXPECT_LE(busy, allowed_processors());
}

TEST(Processors, AProgramThatComputesIsSeen) {
  std::atomic<bool> stop = false;
  std::thread work([&] {
    while (!stop) continue;
  });
  const double busy = busy_processors(std::chrono::milliseconds(200));
  stop = true;
  work.join();
  EXPECT_GT(busy, 0.5);
}

}  // namespace
}  // namespace ringlet::train
