// One pass of a network, looked at from inside: where its time goes, its arithmetic, and its memory
// from moment to moment.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <ATen/record_function.h>
#include <c10/core/Device.h>

#include "ringlet/nn/allocation_count.h"
#include "ringlet/nn/layer_scope.h"

namespace ringlet::service {

struct KindProfile {
  double seconds = 0.0;     ///< without what is inside it and counts for itself
  double operations = 0.0;  ///< of the model: neither adapters' own nor what is computed again
  double bytes = 0.0;       ///< inputs, weights and outputs of both passes, each once
};

struct MemoryMoment {
  double seconds = 0.0;    ///< since the start
  std::int64_t bytes = 0;  ///< of tensors, above what was there at the start
};

/// Looks at all that is computed while it lives; one at a time. A backward pass is counted under
/// the layers whose nodes it runs: nodes are told by their sequence numbers. On CUDA the host waits
/// for the device wherever a layer begins or ends, so that a step takes longer than without.
class StepProfile final : public nn::LayerObserver {
 public:
  explicit StepProfile(c10::Device device);
  ~StepProfile() override;

  void begin(nn::LayerKind kind) override;
  void end(nn::LayerKind kind, const nn::LayerWork& work) override;

  /// The forward pass is over: what is in memory now is kept for the backward pass.
  void forward_ends();

  const std::array<KindProfile, nn::kLayerKinds>& kinds() const { return kinds_; }
  const std::vector<MemoryMoment>& memory() const { return memory_; }
  std::int64_t kept_bytes() const { return kept_bytes_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Frame {
    nn::LayerKind kind;
    std::uint64_t first_node;  ///< the next sequence number when it began
    bool counted = false;      ///< of an adapter: its layer's own product
  };
  /// A node of the graph: the thread that made it, and its number there.
  using NodeName = std::pair<std::uint64_t, std::int64_t>;

  static std::unique_ptr<at::ObserverContext> node_begins(const at::RecordFunction& node);
  static void node_ends(const at::RecordFunction& node, at::ObserverContext* context);
  bool counts(const nn::LayerWork& work);
  nn::LayerKind kind_of(const at::RecordFunction& node) const;
  void push(nn::LayerKind kind);
  void pop();
  void lap();

  c10::Device device_;
  nn::AllocationCount allocations_;
  at::CallbackHandle callback_;
  std::recursive_mutex mutex_;
  std::vector<Frame> open_;
  std::size_t open_nodes_ = 0;
  std::map<NodeName, nn::LayerKind> nodes_;
  std::array<KindProfile, nn::kLayerKinds> kinds_;
  std::vector<MemoryMoment> memory_;
  std::int64_t kept_bytes_ = 0;
  Clock::time_point start_, last_;
};

/// Waits until the device has done what it was asked for.
void wait_for(c10::Device device);

}  // namespace ringlet::service
