// Who has started a process, and its share of the processors.
#include "ringlet/train/launcher.h"

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/expect_error.h"

namespace ringlet::train {
namespace {

using Variables = std::map<std::string, std::string>;

std::optional<Launch> launch_in(const Variables& variables) {
  return find_launch([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(Launcher, RanksAreThoseOfTheInnermostLauncher) {
  EXPECT_FALSE(launch_in({}));
  const auto expect = [](const Variables& variables, std::int64_t rank, std::int64_t count) {
    const std::optional<Launch> launch = launch_in(variables);
    ASSERT_TRUE(launch);
    EXPECT_EQ(launch->rank, rank);
    EXPECT_EQ(launch->count, count);
  };
  expect({{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "3"}}, 3, 4);
  expect({{"PMI_SIZE", "2"}, {"PMI_RANK", "0"}}, 0, 2);
  expect({{"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_PROCID", "7"}}, 7, 8);
  expect({{"OMPI_COMM_WORLD_SIZE", "2"},
          {"OMPI_COMM_WORLD_RANK", "1"},
          {"SLURM_STEP_NUM_TASKS", "8"},
          {"SLURM_PROCID", "7"}},
         1, 2);
}

// A batch script has these variables, and runs once; so has one process of mpirun in a large step.
TEST(Launcher, AProcessOfItsOwnIsNoRank) {
  EXPECT_FALSE(launch_in({{"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}}));
  EXPECT_FALSE(launch_in({{"OMPI_COMM_WORLD_SIZE", "1"},
                          {"OMPI_COMM_WORLD_RANK", "0"},
                          {"SLURM_STEP_NUM_TASKS", "4"},
                          {"SLURM_PROCID", "2"}}));
}

TEST(Launcher, NumbersThatMakeNoSenseAreRefused) {
  for (const Variables& variables :
       {Variables{{"PMI_SIZE", "two"}, {"PMI_RANK", "0"}},
        Variables{{"PMI_SIZE", "2"}, {"PMI_RANK", "2"}},
        Variables{{"PMI_SIZE", "2"}, {"PMI_RANK", "-1"}}, Variables{{"PMI_SIZE", "2"}}})
    expect_error(ErrorCode::invalid_argument, "PMI_", [&] { launch_in(variables); });
}

TEST(Launcher, ProgramsThatAMemberStartsAreNoRanks) {
  setenv("PMI_SIZE", "3", 1);
  setenv("PMI_RANK", "1", 1);
  EXPECT_TRUE(find_launch());
  forget_launch();
  EXPECT_FALSE(find_launch());
}

TEST(Launcher, RanksOfOneMachineDivideItsProcessors) {
  const auto mask = [](std::size_t first, std::size_t end) {
    Processors processors;
    for (std::size_t i = first; i < end; ++i) processors.set(i);
    return processors;
  };
  // Bound to a core each, all on all of them, more ranks than cores, sockets with two each.
  EXPECT_EQ(threads_of_rank(std::vector{mask(0, 1), mask(1, 2)}, 1), 1);
  EXPECT_EQ(threads_of_rank(std::vector{mask(0, 16), mask(0, 16), mask(0, 16), mask(0, 16)}, 2), 4);
  EXPECT_EQ(threads_of_rank(std::vector{mask(0, 9), mask(0, 9), mask(0, 9)}, 0), 3);
  EXPECT_EQ(threads_of_rank(std::vector{mask(0, 2), mask(0, 2), mask(0, 2)}, 0), 1);
  EXPECT_EQ(threads_of_rank(std::vector{mask(0, 8), mask(0, 8), mask(8, 16)}, 0), 4);
  EXPECT_EQ(threads_of_rank(std::vector{mask(0, 8), mask(0, 8), mask(8, 16)}, 2), 8);
  EXPECT_GT(own_processors().count(), 0u);
}

}  // namespace
}  // namespace ringlet::train
