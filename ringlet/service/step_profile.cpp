#include "ringlet/service/step_profile.h"

#include <string_view>

#include <ATen/SequenceNumber.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace ringlet::service {
namespace {

StepProfile* present_profile = nullptr;

std::size_t number_of(nn::LayerKind kind) { return static_cast<std::size_t>(kind); }

}  // namespace

void wait_for(c10::Device device) {
  if (!device.is_cpu())
    c10::impl::VirtualGuardImpl(device.type())
        .synchronizeDevice(device.has_index() ? device.index() : c10::DeviceIndex{0});
}

StepProfile::StepProfile(c10::Device device)
    : device_(device),
      allocations_(device),
      callback_(at::addGlobalCallback(at::RecordFunctionCallback(node_begins, node_ends)
                                          .scopes({at::RecordScope::BACKWARD_FUNCTION}))),
      start_(Clock::now()),
      last_(start_) {
  present_profile = this;
  nn::LayerObserver::install(this);
  memory_.push_back({});
}

StepProfile::~StepProfile() {
  nn::LayerObserver::install(nullptr);
  at::removeCallback(callback_);
  present_profile = nullptr;
}

/// The time since the last look belongs to what is open.
void StepProfile::lap() {
  wait_for(device_);
  const Clock::time_point now = Clock::now();
  const nn::LayerKind kind = open_.empty() ? nn::LayerKind::other : open_.back().kind;
  kinds_[number_of(kind)].seconds += std::chrono::duration<double>(now - last_).count();
  memory_.push_back({std::chrono::duration<double>(now - start_).count(), allocations_.bytes()});
  last_ = Clock::now();
}

void StepProfile::push(nn::LayerKind kind) {
  lap();
  open_.push_back({kind, at::sequence_number::peek(), false});
}

void StepProfile::pop() {
  lap();
  if (!open_.empty()) open_.pop_back();
}

void StepProfile::begin(nn::LayerKind kind) {
  const std::scoped_lock lock(mutex_);
  push(kind);
}

void StepProfile::end(nn::LayerKind kind, const nn::LayerWork& work) {
  const std::scoped_lock lock(mutex_);
  const std::uint64_t thread = at::RecordFunction::currentThreadId();
  // Nodes of what is inside have their kind already.
  if (!open_.empty())
    for (std::uint64_t node = open_.back().first_node; node < at::sequence_number::peek(); ++node)
      nodes_.emplace(NodeName{thread, static_cast<std::int64_t>(node)}, kind);
  if (counts(work)) {
    // In a backward pass a forward pass is one that is computed again.
    const bool again = open_nodes_ > 0;
    KindProfile& profile = kinds_[number_of(kind)];
    profile.operations += (again ? 0.0 : work.operations) + work.backward_operations;
    profile.bytes +=
        (again ? 0.0 : work.bytes) + (work.backward_operations > 0.0 ? work.bytes : 0.0);
  }
  pop();
}

/// An adapted layer has one product of its own, however many of its form its adapter computes.
bool StepProfile::counts(const nn::LayerWork& work) {
  if (work.operations == 0.0) return false;
  for (Frame& frame : open_) {
    if (frame.kind != nn::LayerKind::adapter) continue;
    if (frame.counted) return false;
    frame.counted = true;
  }
  return true;
}

void StepProfile::forward_ends() {
  const std::scoped_lock lock(mutex_);
  lap();
  kept_bytes_ = allocations_.bytes();
}

nn::LayerKind StepProfile::kind_of(const at::RecordFunction& node) const {
  const auto found = nodes_.find({node.forwardThreadId(), node.seqNr()});
  if (found != nodes_.end()) return found->second;
  // What learns hands its gradient to a node without a number: adapters, in most cases.
  const bool leaf = std::string_view(node.name()).find("AccumulateGrad") != std::string_view::npos;
  return leaf ? nn::LayerKind::adapter : nn::LayerKind::other;
}

std::unique_ptr<at::ObserverContext> StepProfile::node_begins(const at::RecordFunction& node) {
  StepProfile& self = *present_profile;
  const std::scoped_lock lock(self.mutex_);
  ++self.open_nodes_;
  self.push(self.kind_of(node));
  return nullptr;
}

void StepProfile::node_ends(const at::RecordFunction& /*node*/, at::ObserverContext* /*context*/) {
  StepProfile& self = *present_profile;
  const std::scoped_lock lock(self.mutex_);
  --self.open_nodes_;
  self.pop();
}

}  // namespace ringlet::service
