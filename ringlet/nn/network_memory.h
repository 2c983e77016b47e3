// Where a frozen network's weights are while it does not compute.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/weight_source.h"

namespace ringlet::nn {

/// A tensor of a network that comes to a device and leaves it. Everybody who holds `handle` sees
/// its numbers where they are.
struct MovingTensor {
  at::Tensor handle;
  at::ScalarType type;     ///< on the device
  at::Tensor home = {};    ///< in host memory: mostly a view of a mapped file, in the file's type
  const void* there = {};  ///< address of its copy on the device

  double bytes() const;  ///< on the device
};

/// What offloading some blocks changes.
struct OffloadEffect {
  std::int64_t blocks = 0;
  double saved_bytes = 0.0;   ///< on the device, while the network computes
  double copied_bytes = 0.0;  ///< to the device in a forward pass, and again in a backward pass
  std::set<std::string> names = {};  ///< of the blocks
};

/// The weights of one network between its uses. On the CPU a network that rests gives the pages of
/// its file back, and the next pass reads them again. On a device its weights are there from
/// enter() to leave(); meanwhile they are the file's, so that host memory holds no copy (but of
/// what is in no file). Networks that learn stay. Must not be used beside a pass of the same
/// network.
class NetworkMemory {
 public:
  /// The network that took its tensors from `store` with these options.
  NetworkMemory(std::shared_ptr<const TensorStore> store, const WeightOptions& options,
                const ModuleIndex& index);

  /// Brings everything to the device that has no place of its own (offload): a few large copies.
  void enter();

  /// The network rests. Does nothing where gradients are recorded, since a backward pass is going
  /// to read the weights, and where its adapters learn.
  void leave();

  /// Keeps these many blocks in host memory, pinned and in the type of the computation, the largest
  /// first. They are copied to the device ahead of their use, in both passes, and two at a time are
  /// there. Results are the same bit for bit. A block that is offloaded is computed again in the
  /// backward pass. 0 ends it. Throws Error(unsupported) on the CPU and for a network that learns.
  void offload(std::int64_t blocks);

  /// The same without doing it. More blocks than there are count as all.
  OffloadEffect offload_effect(std::int64_t blocks) const;

  /// How many blocks there are, and how many of them are offloaded.
  std::int64_t blocks() const { return static_cast<std::int64_t>(blocks_.size()); }
  std::int64_t offloaded() const { return offloaded_; }

  /// Of all its weights on the device, offloaded or not; 0 on the CPU and where it learns.
  double bytes() const;

  /// Of those that are there now.
  double present() const;

 private:
  struct Part {
    std::shared_ptr<BlockState> state;  ///< null: what is in no block
    std::vector<MovingTensor> tensors;
    double bytes() const;
  };
  bool adapters_learn() const;
  std::vector<const Part*> largest(std::int64_t blocks) const;
  void come(const std::vector<MovingTensor*>& tensors) const;

  std::shared_ptr<const TensorStore> store_;
  at::Device device_;
  std::vector<std::shared_ptr<Layer>> layers_;
  Part rest_;
  std::vector<Part> blocks_;
  std::int64_t offloaded_ = 0;
};

}  // namespace ringlet::nn
