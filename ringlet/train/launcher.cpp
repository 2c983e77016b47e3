#include "ringlet/train/launcher.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include <sched.h>

#include "ringlet/core/error.h"

namespace ringlet::train {
namespace {

struct LauncherVariables {
  const char* launcher;
  const char* count;
  const char* rank;
};

/// The first whose count is set is the innermost: mpirun inside of a job of Slurm is mpirun.
constexpr std::array kLaunchers = {
    LauncherVariables{"mpirun (Open MPI)", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
    LauncherVariables{"mpiexec", "PMI_SIZE", "PMI_RANK"},
    LauncherVariables{"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"}};

std::int64_t number_in(const char* name, const char* text) {
  std::int64_t number = -1;
  const char* const end = text + std::strlen(text);
  const auto [last, problem] = std::from_chars(text, end, number);
  if (problem != std::errc() || last != end || number < 0)
    throw Error(ErrorCode::invalid_argument, name,
                "the variable is \"" + std::string(text) + "\", which is not a number",
                "start the program by mpirun or srun, or unset the variable");
  return number;
}

}  // namespace

std::optional<Launch> find_launch(const Environment& environment) {
  for (const LauncherVariables& variables : kLaunchers) {
    const char* const count = environment(variables.count);
    if (count == nullptr) continue;
    Launch launch{variables.launcher, 0, number_in(variables.count, count)};
    if (launch.count <= 1) return std::nullopt;
    const char* const rank = environment(variables.rank);
    launch.rank = rank == nullptr ? launch.count : number_in(variables.rank, rank);
    if (launch.rank >= launch.count)
      throw Error(ErrorCode::invalid_argument, variables.rank,
                  std::string("the variable is ") + (rank == nullptr ? "not set" : rank) +
                      ", but there are " + count + " processes",
                  "start the program by mpirun or srun, or unset " + std::string(variables.count));
    return launch;
  }
  return std::nullopt;
}

std::optional<Launch> find_launch() {
  return find_launch([](const char* name) { return std::getenv(name); });
}

void forget_launch() {
  for (const LauncherVariables& variables : kLaunchers) unsetenv(variables.count);
}

Processors own_processors() {
  Processors own;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return own;
  for (std::size_t i = 0; i < std::min<std::size_t>(kMostProcessors, CPU_SETSIZE); ++i)
    if (CPU_ISSET(i, &set)) own.set(i);
  return own;
}

int threads_of_rank(std::span<const Processors> all, std::size_t rank) {
  double share = 0.0;
  for (std::size_t i = 0; i < kMostProcessors; ++i)
    if (all[rank][i])
      share += 1.0 / static_cast<double>(std::ranges::count_if(
                         all, [i](const Processors& other) { return other[i]; }));
  constexpr double kRounding = 1e-9;  // three thirds
  return std::max(1, static_cast<int>(share + kRounding));
}

}  // namespace ringlet::train
