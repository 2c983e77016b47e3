// One run on several processes or devices, each with the whole model and its share of the data.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

namespace ringlet::train {

/// Rank `rank` of `count` takes the micro-batches rank, rank + count, … of the run, so that `count`
/// ranks with an accumulation of n compute what one computes with n * count.
struct DataParallel {
  std::int64_t rank = 0;
  std::int64_t count = 1;
  /// Replaces each tensor by its sum over all ranks, in place (an all-reduce). Every rank calls it
  /// once per step, between backward pass and clipping, with tensors of the same shapes and types
  /// in the same order, and writer_first() with one number on the same device. Not called, and may
  /// be empty, where there is one rank.
  std::function<void(std::vector<at::Tensor>& tensors)> reduce = {};

  /// Whether this rank writes what a run leaves: checkpoints, logs, samples, the result. The others
  /// only read them.
  bool writes() const { return rank == 0; }

  /// Whether one rank says so. Every rank asks, at the same place; `device` as below.
  bool any(bool own, at::Device device) const;

  /// Does what leaves files that all ranks need: first the rank that writes, then the others, which
  /// find its files. Every rank calls it. Where the first one fails the others wait until `reduce`
  /// gives up. `device` is that of the parameters: a reduction may know no other (NCCL).
  void writer_first(at::Device device, const std::function<void()>& work) const;
};

}  // namespace ringlet::train
