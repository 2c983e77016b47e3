// Blocks of a network whose weights are in host memory and come to the device for their use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include "ringlet/nn/block.h"

namespace ringlet::nn {

/// The weights of a block are one piece of pinned memory and come by one copy. While a block
/// computes, the one that followed it the last time is on its way, on a stream of copies beside
/// that of the computation. Those two are there at a time.
class OffloadedBlocks {
 public:
  explicit OffloadedBlocks(at::Device device);
  ~OffloadedBlocks();
  OffloadedBlocks(const OffloadedBlocks&) = delete;
  OffloadedBlocks& operator=(const OffloadedBlocks&) = delete;

  /// A block with tensors that a network holds by these handles; `homes` are their numbers in host
  /// memory, in the type that they have on the device.
  void add(const BlockState& block, std::vector<at::Tensor> handles,
           std::span<const at::Tensor> homes);

  /// Has the block's weights on the device until another block needs the place.
  void bring(const BlockState& block);

  /// All of them back in host memory.
  void leave();

 private:
  /// What is on the device, or on its way.
  struct Arrival {
    at::Tensor bytes;
    c10::Event done;
    bool seen = false;  ///< by the handles
  };
  struct Entry {
    std::vector<at::Tensor> handles, homes;  ///< homes: views of `pinned`
    std::vector<std::int64_t> places;        ///< in `pinned`, in bytes
    at::Tensor pinned;
    std::optional<Arrival> here = std::nullopt;
  };
  void start(Entry& entry);
  void finish(Entry& entry);
  void leave(Entry& entry);
  std::size_t expected_after(std::size_t current) const;

  at::Device device_;
  c10::Stream copies_;
  std::vector<Entry> entries_;
  std::map<const BlockState*, std::size_t> numbers_;
  std::size_t before_, current_;  ///< the last two that were asked for
  std::map<std::pair<std::size_t, std::size_t>, std::size_t> next_;  ///< what came after two
};

}  // namespace ringlet::nn
