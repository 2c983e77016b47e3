// One run on several processes or devices, each with the whole model and its share of the data.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include "ringlet/core/error.h"
#include "ringlet/core/json.h"

namespace ringlet::train {

/// Other ranks did not come to where this one waits for them.
class LostRanks : public Error {
 public:
  using Error::Error;
};

/// Rank `rank` of `count` takes the micro-batches rank, rank + count, … of the run, so that `count`
/// ranks with an accumulation of n compute what one computes with n * count.
struct DataParallel {
  std::int64_t rank = 0;
  std::int64_t count = 1;
  /// Replaces each tensor by its sum over all ranks, in place (an all-reduce). Every rank calls it
  /// once per step, between backward pass and clipping, with tensors of the same shapes and types
  /// in the same order, and writer_first() with one number on the same device. Not called, and may
  /// be empty, where there is one rank. Throws LostRanks.
  std::function<void(std::vector<at::Tensor>& tensors)> reduce = {};
  /// Does work that may take longer than others wait for this rank, and tells them so meanwhile.
  /// It may call `reduce`, and then waits for the others itself. Empty = no rank is waited for
  /// longer than others.
  std::function<void(const std::function<void()>& work)> while_others_wait = {};

  /// Whether this rank writes what a run leaves: checkpoints, logs, samples, the result. The others
  /// only read them.
  bool writes() const { return rank == 0; }

  /// Work of this rank alone, by while_others_wait.
  void alone(const std::function<void()>& work) const;

  /// Does what leaves files that all ranks need: first the rank that writes, then the others, which
  /// find its files. Every rank calls it. Where the first one fails the others wait until `reduce`
  /// gives up. `device` is that of the parameters: a reduction may know no other (NCCL).
  void writer_first(at::Device device, const std::function<void()>& work) const;

  /// Throws Error(mismatch) on all ranks where not all have the same settings, an object; with the
  /// keys that differ. Every rank calls it.
  void check_same(const Json& settings, at::Device device) const;

 private:
  std::vector<std::string> differing(const Json& settings, at::Device device) const;
};

}  // namespace ringlet::train
