// Ranks that wait for each other, as threads over a module that knows no MPI.
#include "ringlet/train/process_group.h"

#include <array>
#include <chrono>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/expect_error.h"

namespace ringlet::train {
namespace {

constexpr int kRanks = 3;

/// What MPI does, in one process.
struct FakeMpi {
  struct Operation {
    int arrived = 0;
    std::array<void*, kRanks> places{};
    std::array<const void*, kRanks> given{};
  };
  std::mutex mutex;
  std::deque<Operation> operations;
  std::array<std::size_t, kRanks> begun{};
  std::array<std::deque<std::pair<int, char>>, kRanks> words;
  int sums = 0;  ///< that rank 0 has begun

  template <class Number>
  static void add(const Operation& operation, std::size_t count) {
    std::vector<Number> sum(count);
    for (const void* place : operation.places)
      for (std::size_t i = 0; i < count; ++i) sum[i] += static_cast<const Number*>(place)[i];
    for (void* place : operation.places) std::memcpy(place, sum.data(), count * sizeof(Number));
  }

  /// Whether all have come to the operation of this rank that begins now.
  bool arrive(int rank, void* place, const void* given, Operation*& operation) {
    const std::size_t number = begun[static_cast<std::size_t>(rank)]++;
    while (operations.size() <= number) operations.emplace_back();
    operation = &operations[number];
    operation->places[static_cast<std::size_t>(rank)] = place;
    operation->given[static_cast<std::size_t>(rank)] = given;
    return ++operation->arrived == kRanks;
  }
};

FakeMpi& fake() {
  static FakeMpi one;
  return one;
}

template <int kRank>
struct FakeModule {
  static const char* start(int* rank, int* count) {
    *rank = kRank;
    *count = kRanks;
    return nullptr;
  }
  static const char* begin_sum(void* numbers, std::size_t count, int wide) {
    const std::lock_guard lock(fake().mutex);
    FakeMpi::Operation* operation = nullptr;
    if (kRank == 0) ++fake().sums;
    if (!fake().arrive(kRank, numbers, nullptr, operation)) return nullptr;
    wide != 0 ? FakeMpi::add<double>(*operation, count) : FakeMpi::add<float>(*operation, count);
    return nullptr;
  }
  static const char* begin_gather(const void* own, void* all, std::size_t bytes) {
    const std::lock_guard lock(fake().mutex);
    FakeMpi::Operation* operation = nullptr;
    if (!fake().arrive(kRank, all, own, operation)) return nullptr;
    for (void* place : operation->places)
      for (std::size_t i = 0; i < kRanks; ++i)
        std::memcpy(static_cast<char*>(place) + i * bytes, operation->given[i], bytes);
    return nullptr;
  }
  static int done() {
    const std::lock_guard lock(fake().mutex);
    for (std::size_t i = 0; i < fake().begun[kRank]; ++i)
      if (fake().operations[i].arrived < kRanks) return 0;
    return 1;
  }
  static const char* problem() { return ""; }
  static void say(int rank, char word) {
    const std::lock_guard lock(fake().mutex);
    fake().words[static_cast<std::size_t>(rank)].emplace_back(kRank, word);
  }
  static int hear(int* rank, char* word) {
    const std::lock_guard lock(fake().mutex);
    auto& mine = fake().words[kRank];
    if (mine.empty()) return 0;
    std::tie(*rank, *word) = mine.front();
    mine.pop_front();
    return 1;
  }
  static void end() {}
  static void end_all(int) {}
  static constexpr MpiModule kModule = {kMpiModuleVersion, start, begin_sum, begin_gather, done,
                                        problem,           say,   hear,      end,          end_all};
};

class ProcessGroupTest : public testing::Test {
 protected:
  void SetUp() override {
    FakeMpi& mpi = fake();
    mpi.operations.clear();
    mpi.begun = {};
    mpi.words = {};
    mpi.sums = 0;
  }

  /// Runs `work(group)` as every rank at once.
  template <class Work>
  static void as_ranks(double timeout, const Work& work) {
    const std::array modules = {&FakeModule<0>::kModule, &FakeModule<1>::kModule,
                                &FakeModule<2>::kModule};
    std::vector<std::thread> threads;
    for (int rank = 0; rank < kRanks; ++rank)
      threads.emplace_back([&, rank] {
        const auto group = std::make_shared<ProcessGroup>(*modules[static_cast<std::size_t>(rank)],
                                                          Launch{"mpirun", rank, kRanks}, timeout);
        work(*group);
      });
    for (std::thread& thread : threads) thread.join();
  }
};

// An adapter's gradients travel as one buffer, whatever their shapes and types; fp64 beside it.
TEST_F(ProcessGroupTest, TensorsAreSummedAsOneBuffer) {
  as_ranks(60.0, [](ProcessGroup& group) {
    EXPECT_EQ(group.count(), kRanks);
    EXPECT_EQ(group.machines(), 1);
    EXPECT_EQ(group.rank_here(), group.rank());
    EXPECT_GE(group.threads(), 1);
    EXPECT_EQ(group.first_of(static_cast<std::uint64_t>(group.rank()) + (1ull << 63)), 1ull << 63);
    const auto own = static_cast<double>(group.rank() + 1);
    const at::Tensor turned = at::full({2, 3}, own).t();
    std::vector<at::Tensor> tensors = {at::full({4}, own), turned,
                                       at::full({2}, own, at::kBFloat16),
                                       at::full({3}, own + 1e-12, at::kDouble), at::zeros({0})};
    DataParallel ranks = group.data_parallel();
    ranks.reduce(tensors);
    for (std::size_t i : {0u, 1u, 2u})
      EXPECT_TRUE(tensors[i].eq(6.0).all().item<bool>()) << tensors[i];
    EXPECT_TRUE(turned.eq(6.0).all().item<bool>());  // in place
    EXPECT_NEAR(tensors[3][0].item<double>(), 6.0 + 3e-12, 1e-14);
    EXPECT_EQ(ranks.rank, group.rank());
    group.finish();
    EXPECT_TRUE(group.finished());
  });
  EXPECT_EQ(fake().sums, 3);  // two, and that of finish()
}

TEST_F(ProcessGroupTest, ARankThatDoesNotComeIsNamedByAllOthers) {
  std::array<std::string, kRanks> said;
  as_ranks(0.3, [&](ProcessGroup& group) {
    if (group.rank() == 1) return;
    // They give up at different times, and answer each other meanwhile.
    std::this_thread::sleep_for(std::chrono::milliseconds(100 * group.rank()));
    std::vector<at::Tensor> some = {at::ones({2})};
    try {
      group.data_parallel().reduce(some);
    } catch (const LostRanks& lost) {
      said[static_cast<std::size_t>(group.rank())] = lost.what();
    }
    EXPECT_TRUE(group.lost_some());
    EXPECT_FALSE(group.lost_first());
  });
  for (const std::size_t rank : {0u, 2u})
    EXPECT_NE(said[rank].find("no answer from rank 1;"), std::string::npos) << said[rank];
}

// Samples, checkpoints, loading: the others wait as long as it takes.
TEST_F(ProcessGroupTest, ARankAtWorkIsWaitedFor) {
  as_ranks(0.3, [](ProcessGroup& group) {
    const DataParallel ranks = group.data_parallel();
    std::vector<at::Tensor> some = {at::ones({2})};
    if (group.rank() == 0)
      ranks.alone([] { std::this_thread::sleep_for(std::chrono::milliseconds(900)); });
    EXPECT_NO_THROW(ranks.reduce(some));
    // Work that waits for the others itself.
    EXPECT_NO_THROW(ranks.alone([&] { ranks.writer_first(at::kCPU, [] {}); }));
    EXPECT_GT(group.measure_network().bytes_per_second, 0.0);
  });
}

TEST_F(ProcessGroupTest, AnotherMpiThanTheLaunchersIsRefused) {
  expect_error(ErrorCode::mismatch, "mpiexec has started 2 processes, but MPI sees 3", [] {
    ProcessGroup(FakeModule<0>::kModule, Launch{"mpiexec", 0, 2}, 1.0);
  });
}

}  // namespace
}  // namespace ringlet::train
