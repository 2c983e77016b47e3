// This process as one of several that mpirun or srun has started.
#pragma once

#include <memory>

#include "ringlet/core/error.h"
#include "ringlet/train/process_group.h"

namespace ringlet::app {

/// Joins the others, where there are some, and leaves what the program says to rank 0. Nothing for
/// a process of its own. Throws as train::ProcessGroup::join.
std::shared_ptr<train::ProcessGroup> join_ranks(double timeout, bool verbose);

/// Prints the error as report() does, ends the other ranks too, and returns the exit status. Most
/// errors are those of all ranks: others than rank 0 wait a moment for its report to end them, and
/// then print what they have.
int report_of_rank(const Error& problem, bool json);

}  // namespace ringlet::app
