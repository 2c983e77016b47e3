// The processes of one run, which mpirun or srun has started.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/train/data_parallel.h"
#include "ringlet/train/launcher.h"
#include "ringlet/train/mpi_module.h"
#include "ringlet/train/scaling.h"

namespace ringlet::train {

/// This process among all of them. One thread uses it; another one of its own speaks to the others
/// while the first is at work.
class ProcessGroup : public std::enable_shared_from_this<ProcessGroup> {
 public:
  /// Loads libringlet_mpi.so and joins the others, which do the same. `timeout`: how many seconds a
  /// rank waits for the others where it needs them. Throws Error(not_found) with what to install
  /// where the module is missing, and Error(mismatch) where MPI sees other processes than the
  /// launcher has started.
  static std::shared_ptr<ProcessGroup> join(const Launch& launch, double timeout);

  /// For tests: with a module of their own.
  ProcessGroup(const MpiModule& module, const Launch& launch, double timeout);

  std::int64_t rank() const { return rank_; }
  std::int64_t count() const { return count_; }
  std::int64_t machines() const { return machines_; }    ///< by their names
  std::int64_t rank_here() const { return rank_here_; }  ///< among those of this machine
  int threads() const { return threads_; }               ///< this rank's share of its machine

  /// Its functions keep the group alive.
  DataParallel data_parallel();

  /// Rank 0's number, on all ranks.
  std::uint64_t first_of(std::uint64_t number);

  /// What an all-reduce between the ranks costs, measured: a small one and a large one, fitted to
  /// ring_all_reduce_seconds.
  Network measure_network();

  /// Waits for the others and leaves MPI, together with them. Afterwards there is no group any
  /// more.
  void finish();
  bool finished() const { return finished_; }

  /// Ends all processes, this one too.
  void end_all(int status) const { module_->end_all(status); }

  /// Whether others were lost, and whether rank 0 is among them.
  bool lost_some() const { return lost_some_; }
  bool lost_first() const { return lost_first_; }

 private:
  using Clock = std::chrono::steady_clock;

  void gather(const void* own, void* all, std::size_t bytes);
  void find_machines();
  void sum(std::vector<at::Tensor>& tensors);
  void sum_floats(const std::vector<at::Tensor>& tensors, const std::vector<at::Tensor>& wide);
  void while_others_wait(const std::function<void()>& work);
  void wait();
  bool hear(std::vector<bool>& answered);
  void say_to_others(char word);
  LostRanks lost();
  void check(const char* problem) const;

  const MpiModule* module_;
  Launch launch_;
  std::chrono::duration<double> timeout_;
  std::int64_t rank_ = 0, count_ = 1, machines_ = 1, rank_here_ = 0;
  int threads_ = 1;
  std::vector<std::string> hosts_;  ///< by rank
  std::mutex speaking_;             ///< MPI is used by one thread at a time
  at::Tensor buffer_;               ///< tensors side by side, in host memory
  std::vector<at::Tensor> wide_;    ///< those in fp64 there; MPI may have them after an error, too
  bool alone_ = false, finished_ = false, lost_some_ = false, lost_first_ = false;
};

}  // namespace ringlet::train
