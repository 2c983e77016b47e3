// How many bytes of tensors a computation holds.
#pragma once

#include <cstdint>
#include <memory>

namespace ringlet::nn {

/// Counts the bytes of tensors that are allocated and freed on this thread, and in the backward
/// passes that it starts, while it lives: on the CPU, and on CUDA by LibTorch's allocator. Exact
/// and repeatable; what kernels take inside themselves is not counted.
class ByteCount {
 public:
  ByteCount();
  ~ByteCount();
  ByteCount(const ByteCount&) = delete;
  ByteCount& operator=(const ByteCount&) = delete;

  std::int64_t now() const;   ///< allocated since the start and not freed
  std::int64_t peak() const;  ///< the most of that since the start

 private:
  struct Counting;
  std::unique_ptr<Counting> counting_;
};

}  // namespace ringlet::nn
