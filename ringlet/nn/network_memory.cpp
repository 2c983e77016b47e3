#include "ringlet/nn/network_memory.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <c10/core/GradMode.h>

#include "ringlet/core/error.h"
#include "ringlet/io/mapped_pages.h"
#include "ringlet/nn/block.h"
#include "ringlet/nn/device_copy.h"
#include "ringlet/nn/offloaded_blocks.h"

namespace ringlet::nn {
namespace {

std::vector<MovingTensor*> addresses(std::vector<MovingTensor>& tensors) {
  std::vector<MovingTensor*> all;
  for (MovingTensor& tensor : tensors) all.push_back(&tensor);
  return all;
}

/// What the network shows while it is in host memory has become its own: a change of it
/// (TensorSlots) or more rows of a table.
void follow(MovingTensor& tensor) {
  if (!tensor.home.defined() || tensor.handle.const_data_ptr() != tensor.home.const_data_ptr())
    tensor.home = tensor.handle.detach();
}

void go_home(MovingTensor& tensor) {
  if (tensor.handle.is_cpu()) return;
  const bool changed = tensor.handle.const_data_ptr() != tensor.there;
  if (changed || !tensor.home.defined()) tensor.home = tensor.handle.detach().cpu();
  tensor.handle.set_data(tensor.home);
  tensor.there = nullptr;
}

}  // namespace

double MovingTensor::bytes() const {
  return static_cast<double>(handle.numel()) * static_cast<double>(c10::elementSize(type));
}

double NetworkMemory::Part::bytes() const {
  return std::accumulate(
      tensors.begin(), tensors.end(), 0.0,
      [](double sum, const MovingTensor& tensor) { return sum + tensor.bytes(); });
}

NetworkMemory::NetworkMemory(std::shared_ptr<const TensorStore> store, const WeightOptions& options,
                             const ModuleIndex& index)
    : store_(std::move(store)), device_(options.device) {
  for (const auto& [name, layer] : index.layers) layers_.push_back(layer);
  if (!options.at_home) return;
  for (const auto& [name, state] : index.blocks) blocks_.push_back({state, {}});
  const auto block_of = [this](const std::string& name) -> Part& {
    const auto own = std::ranges::find_if(
        blocks_, [&](const Part& block) { return name.starts_with(block.state->name + "."); });
    return own == blocks_.end() ? rest_ : *own;
  };
  // Small tensors stay together: adapters change them (TensorSlots), and they weigh nothing.
  for (const auto& [name, tensor] : index.tensors)
    (tensor.dim() < 2 ? rest_ : block_of(name))
        .tensors.push_back({tensor, index.device_types.at(name)});
  for (const auto& [name, layer] : index.layers)
    if (layer->stored_weight().coded())
      for (const at::Tensor& codes : layer->stored_weight().tensors())
        block_of(name).tensors.push_back({codes, codes.scalar_type()});
}

double NetworkMemory::bytes() const {
  return std::accumulate(blocks_.begin(), blocks_.end(), rest_.bytes(),
                         [](double sum, const Part& block) { return sum + block.bytes(); });
}

double NetworkMemory::present() const {
  double bytes = 0.0;
  const auto add = [&bytes](const Part& part) {
    for (const MovingTensor& tensor : part.tensors)
      if (!tensor.handle.is_cpu()) bytes += tensor.bytes();
  };
  add(rest_);
  std::ranges::for_each(blocks_, add);
  return bytes;
}

void NetworkMemory::come(const std::vector<MovingTensor*>& tensors) const {
  const at::NoGradGuard no_grad;
  constexpr std::size_t kAtATime = std::size_t{64} << 20;  // of pinned memory
  std::vector<MovingTensor*> coming;
  std::vector<at::Tensor> homes;
  std::size_t bytes = 0;
  bool came = false;
  const auto copy = [&] {
    const std::vector<at::Tensor> there = to_device(homes, device_);
    for (std::size_t i = 0; i < there.size(); ++i) {
      coming[i]->handle.set_data(there[i].to(coming[i]->type));
      coming[i]->there = coming[i]->handle.const_data_ptr();
      // What no file has comes back from the device.
      if (!io::is_mapped(homes[i].const_data_ptr())) coming[i]->home = at::Tensor();
    }
    coming.clear(), homes.clear(), bytes = 0;
    came = true;
  };
  // Small ones apart: somebody may keep one that has been changed (TensorSlots), and with it the
  // memory that it came in.
  for (const bool small : {true, false}) {
    for (MovingTensor* tensor : tensors) {
      if (!tensor->handle.is_cpu() || (tensor->handle.dim() < 2) != small) continue;
      follow(*tensor);
      coming.push_back(tensor);
      homes.push_back(tensor->home);
      if ((bytes += tensor->home.nbytes()) >= kAtATime) copy();
    }
    if (!homes.empty()) copy();
  }
  if (came) store_->release();
}

void NetworkMemory::enter() {
  if (device_.is_cpu()) return;
  std::vector<MovingTensor*> own = addresses(rest_.tensors);
  for (Part& block : blocks_)
    if (!block.state->offloaded)
      std::ranges::copy(addresses(block.tensors), std::back_inserter(own));
  come(own);
}

bool NetworkMemory::adapters_learn() const {
  return std::ranges::any_of(layers_, [](const auto& layer) {
    return layer->adapter && std::ranges::any_of(layer->adapter->parameters(), [](const auto& one) {
             return one.second.requires_grad();
           });
  });
}

void NetworkMemory::leave() {
  if (c10::GradMode::is_enabled()) return;
  if (device_.is_cpu()) return store_->release();
  if (adapters_learn()) return;
  for (MovingTensor& tensor : rest_.tensors) go_home(tensor);
  for (Part& block : blocks_) {
    if (block.state->offloaded)
      block.state->offloaded->leave();
    else
      for (MovingTensor& tensor : block.tensors) go_home(tensor);
  }
}

std::vector<const NetworkMemory::Part*> NetworkMemory::largest(std::int64_t blocks) const {
  std::vector<const Part*> all;
  for (const Part& block : blocks_) all.push_back(&block);
  std::ranges::stable_sort(all, std::ranges::greater(), [](const Part* p) { return p->bytes(); });
  all.resize(std::min(all.size(), static_cast<std::size_t>(std::max<std::int64_t>(0, blocks))));
  return all;
}

OffloadEffect NetworkMemory::offload_effect(std::int64_t blocks) const {
  OffloadEffect effect;
  double there = 0.0;
  for (const Part* block : largest(blocks)) {
    if (effect.blocks++ < 2) there += block->bytes();  // the largest two at a time
    effect.copied_bytes += block->bytes();
    effect.names.insert(block->state->name);
  }
  effect.saved_bytes = effect.copied_bytes - there;
  if (effect.blocks <= 2) effect.copied_bytes = 0.0;  // they come once, and stay
  return effect;
}

void NetworkMemory::offload(std::int64_t blocks) {
  if (blocks > 0 && blocks_.empty())
    throw Error(ErrorCode::unsupported, Field("offload_layers"),
                device_.is_cpu()
                    ? "on the CPU all layers are in host memory"
                    : "a network that learns stays on the device, as does one without blocks",
                device_.is_cpu() ? "to read them from their file in every step, use `low_memory`"
                                 : "leave it out");
  const at::NoGradGuard no_grad;
  // All of them: those that came together share their memory.
  for (MovingTensor& tensor : rest_.tensors) go_home(tensor);
  for (Part& block : blocks_) {
    if (block.state->offloaded) block.state->offloaded->leave();
    for (MovingTensor& tensor : block.tensors)
      if (block.state->offloaded && tensor.home.defined())
        tensor.handle.set_data(tensor.home);
      else
        go_home(tensor);
    block.state->offloaded = nullptr;
  }
  const std::vector<const Part*> chosen = largest(blocks);
  offloaded_ = static_cast<std::int64_t>(chosen.size());
  if (chosen.empty()) return;
  const auto offloaded = std::make_shared<OffloadedBlocks>(device_);
  for (const Part* block : chosen) {
    std::vector<at::Tensor> handles, homes;
    for (const MovingTensor& tensor : block->tensors) {
      handles.push_back(tensor.handle);
      homes.push_back(tensor.handle.to(tensor.type));
    }
    offloaded->add(*block->state, std::move(handles), homes);
    block->state->offloaded = offloaded;
  }
  store_->release();
}

}  // namespace ringlet::nn
