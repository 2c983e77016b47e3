// What the program and libringlet_mpi.so say to each other. The module is loaded when a process
// finds that mpirun or srun has started it, so that nothing else needs MPI. C types alone: it may
// be built apart from the program.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ringlet::train {

inline constexpr std::uint32_t kMpiModuleVersion = 1;

/// Functions give nothing, or in words what went wrong. One thread at a time calls them.
struct MpiModule {
  std::uint32_t version;
  /// MPI_Init_thread; the process's number among all of them.
  const char* (*start)(int* rank, int* count);
  /// Begins to replace numbers (double where `wide`, float otherwise) by their sums over all
  /// ranks. They must stay in their place until done().
  const char* (*begin_sum)(void* numbers, std::size_t count, int wide);
  /// Begins to collect `bytes` of every rank, in their order.
  const char* (*begin_gather)(const void* own, void* all, std::size_t bytes);
  /// Goes on with all that was begun: 1 = all of it is done, 0 = not yet, -1 = failed.
  int (*done)();
  const char* (*problem)();  ///< in words, of what failed
  /// Sends a word to another rank; nobody waits for it.
  void (*say)(int rank, char word);
  /// Takes a word that was sent to this rank: 1 = there was one.
  int (*hear)(int* rank, char* word);
  void (*end)();                ///< MPI_Finalize, which all ranks call
  void (*end_all)(int status);  ///< MPI_Abort: ends all ranks, and does not return
};

/// The module's only symbol.
using MpiModuleFunction = const MpiModule* (*)();
inline constexpr const char* kMpiModuleFunction = "ringlet_mpi_module";
inline constexpr const char* kMpiModuleFile = "libringlet_mpi.so";

}  // namespace ringlet::train
