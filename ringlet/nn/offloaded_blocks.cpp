#include "ringlet/nn/offloaded_blocks.h"

#include <limits>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace ringlet::nn {
namespace {

constexpr std::size_t kNoBlock = std::numeric_limits<std::size_t>::max();
constexpr std::int64_t kAlignment = 16;  // every type can be viewed at such a place

c10::Stream computing(at::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

/// The part of `bytes` that holds numbers like these.
at::Tensor numbers_at(const at::Tensor& bytes, std::int64_t place, const at::Tensor& like) {
  return bytes.narrow(0, place, static_cast<std::int64_t>(like.nbytes()))
      .view(like.scalar_type())
      .view(like.sizes());
}

}  // namespace

OffloadedBlocks::OffloadedBlocks(at::Device device)
    : device_(device),
      copies_(c10::impl::VirtualGuardImpl(device.type()).getNewStream(device)),
      before_(kNoBlock),
      current_(kNoBlock) {}

OffloadedBlocks::~OffloadedBlocks() {
  try {
    leave();
  } catch (...) {  // a device that has failed already: nobody is going to compute on it
  }
}

void OffloadedBlocks::add(const BlockState& block, std::vector<at::Tensor> handles,
                          std::span<const at::Tensor> homes) {
  const at::NoGradGuard no_grad;
  Entry entry{.handles = std::move(handles), .homes = {}, .places = {}, .pinned = {}};
  std::int64_t bytes = 0;
  for (const at::Tensor& home : homes) {
    entry.places.push_back(bytes);
    bytes += (static_cast<std::int64_t>(home.nbytes()) + kAlignment - 1) / kAlignment * kAlignment;
  }
  entry.pinned = at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true));
  for (std::size_t i = 0; i < homes.size(); ++i) {
    entry.homes.push_back(numbers_at(entry.pinned, entry.places[i], homes[i]).copy_(homes[i]));
    entry.handles[i].set_data(entry.homes[i]);
  }
  numbers_.emplace(&block, entries_.size());
  entries_.push_back(std::move(entry));
}

/// The copy waits for what has been computed so far, since the memory may have been in use until
/// then, and not for what is computed from now on.
void OffloadedBlocks::start(Entry& entry) {
  const c10::DeviceGuard on_device(device_);
  at::Tensor bytes = at::empty(entry.pinned.sizes(), entry.pinned.options().device(device_));
  c10::Event free(device_.type()), done(device_.type());
  free.record(computing(device_));
  free.block(copies_);
  {
    const c10::StreamGuard on_copies(copies_);
    bytes.copy_(entry.pinned, /*non_blocking=*/true);
  }
  done.record(copies_);
  entry.here.emplace(Arrival{std::move(bytes), std::move(done)});
}

void OffloadedBlocks::finish(Entry& entry) {
  if (entry.here->seen) return;
  entry.here->done.block(computing(device_));
  for (std::size_t i = 0; i < entry.handles.size(); ++i)
    entry.handles[i].set_data(numbers_at(entry.here->bytes, entry.places[i], entry.homes[i]));
  entry.here->seen = true;
}

void OffloadedBlocks::leave(Entry& entry) {
  if (!entry.here) return;
  // Memory goes back to the computation's stream, which must not use it while it is filled.
  if (!entry.here->seen) entry.here->done.block(computing(device_));
  for (std::size_t i = 0; i < entry.handles.size(); ++i) entry.handles[i].set_data(entry.homes[i]);
  entry.here.reset();
}

void OffloadedBlocks::leave() {
  for (Entry& entry : entries_) leave(entry);
}

/// Passes go through the blocks in the same orders again and again: forward, backward, forward.
std::size_t OffloadedBlocks::expected_after(std::size_t current) const {
  const auto known = next_.find({before_, current});
  return known == next_.end() ? kNoBlock : known->second;
}

void OffloadedBlocks::bring(const BlockState& block) {
  const at::NoGradGuard no_grad;
  const std::size_t number = numbers_.at(&block);
  if (number != current_) {
    if (current_ != kNoBlock) next_[{before_, current_}] = number;
    before_ = current_;
    current_ = number;
  }
  const std::size_t next = expected_after(number);
  for (std::size_t i = 0; i < entries_.size(); ++i)
    if (i != number && i != next) leave(entries_[i]);
  if (!entries_[number].here) start(entries_[number]);
  finish(entries_[number]);
  if (next != kNoBlock && !entries_[next].here) start(entries_[next]);
}

}  // namespace ringlet::nn
