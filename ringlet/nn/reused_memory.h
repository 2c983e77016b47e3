// Memory of the CPU's tensors that is used again from step to step.
//
// A training step takes what the step before it has freed. The system's allocator gives large
// blocks back in between, so that every page of them faults again, and searches for small ones.
#pragma once

#include <cstddef>

namespace ringlet::nn {

/// While one of these lives, blocks of freed tensors on the CPU are kept for tensors of about the
/// same size. Blocks in use and kept ones are together never more than has been in use at one time
/// since the first of them, so that the peak is that of a program without it (beside roundings, an
/// eighth at most of blocks below 1 MiB). The last one that ends frees all that is kept. Threads
/// share the blocks.
class ReusedMemory {
 public:
  ReusedMemory();
  ~ReusedMemory();
  ReusedMemory(const ReusedMemory&) = delete;
  ReusedMemory& operator=(const ReusedMemory&) = delete;

  /// Bytes of blocks that are in use, kept for later, and that were in use at most, and how many
  /// blocks were taken from those that were kept or are new.
  struct Use {
    std::size_t in_use, kept, most_in_use, reused, fresh;
  };
  static Use use();
};

}  // namespace ringlet::nn
