#include "ringlet/nn/parallel.h"

#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

namespace ringlet::nn {
namespace {

class ParallelFor : public testing::Test {
 protected:
  ParallelFor() { at::set_num_threads(2); }
  ~ParallelFor() override { at::set_num_threads(threads_); }

 private:
  int threads_ = at::get_num_threads();
};

// at::parallel_for in code that is compiled without OpenMP is a loop on one thread.
TEST_F(ParallelFor, WorksOnTwoThreadsAtATime) {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  std::vector<int> seen(1001, 0);
  parallel_for(1001, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(seen, std::vector<int>(1001, 1));
  EXPECT_EQ(threads.size(), 2U);
}

TEST_F(ParallelFor, TakesOneThreadForLittleWorkInsideAnotherLoopAndForNothing) {
  const auto parts_of = [](std::int64_t count, std::int64_t grain) {
    std::mutex mutex;
    int parts = 0;
    parallel_for(count, grain, [&](std::int64_t, std::int64_t) {
      const std::lock_guard lock(mutex);
      ++parts;
    });
    return parts;
  };
  EXPECT_EQ(parts_of(0, 1), 0);
  EXPECT_EQ(parts_of(100, 100), 1);
  EXPECT_EQ(parts_of(101, 100), 2);
  EXPECT_EQ(grain_of(1 << 20), 1);
  EXPECT_GT(grain_of(16), 1000);
  parallel_for(2, 1, [&](std::int64_t, std::int64_t) { EXPECT_EQ(parts_of(100, 1), 1); });
}

TEST_F(ParallelFor, ThrowsWhatTheWorkThrows) {
  EXPECT_THROW(parallel_for(2, 1,
                            [](std::int64_t begin, std::int64_t) {
                              if (begin > 0) throw std::runtime_error("of the second part");
                            }),
               std::runtime_error);
}

}  // namespace
}  // namespace ringlet::nn
