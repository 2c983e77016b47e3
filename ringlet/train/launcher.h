// Programs that start a run as several processes (mpirun, srun), as a process sees them.
#pragma once

#include <bitset>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

namespace ringlet::train {

/// One of several processes that were started together.
struct Launch {
  std::string launcher;  ///< for messages: "mpirun (Open MPI)"
  std::int64_t rank = 0;
  std::int64_t count = 1;
};

/// The value of a variable of the environment; null where it is not set.
using Environment = std::function<const char*(const char* name)>;

/// What the launcher says: Open MPI's mpirun by OMPI_COMM_WORLD_SIZE, MPICH's and Intel's by
/// PMI_SIZE, srun by SLURM_STEP_NUM_TASKS (SLURM_NTASKS stands in a batch script, too, which runs
/// once). Nothing for a process of its own. Throws Error(invalid_argument) for numbers that cannot
/// be read.
std::optional<Launch> find_launch(const Environment& environment);

/// The same of this process.
std::optional<Launch> find_launch();

/// From now on this process, and programs that it starts, are processes of their own. Call it while
/// there is one thread.
void forget_launch();

/// Processors by number, as sched_getaffinity has them.
inline constexpr std::size_t kMostProcessors = 1024;
using Processors = std::bitset<kMostProcessors>;

/// Those that this process may use.
Processors own_processors();

/// How many threads a rank should have, which may use the processors `all[rank]` of a machine that
/// it shares with the others in `all`: its share of each of them, and at least 1.
int threads_of_rank(std::span<const Processors> all, std::size_t rank);

}  // namespace ringlet::train
