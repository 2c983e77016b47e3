// What a pass keeps for its backward pass, counted: what the programs of this folder that count
// share.
//
// After the forward pass every storage that autograd has saved is counted once, as
// torch.autograd.graph.saved_tensors_hooks would show it: the engine that hands out hooks is
// replaced, as Python replaces it. What was there before the pass (weights, parameters, inputs) is
// left out. "live" is what the allocators have given out during the pass and not got back, whoever
// holds it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>

#include "ringlet/core/json.h"
#include "ringlet/nn/byte_count.h"

namespace ringlet::bench {

/// Tensors that the nodes let go of, in the order in which they do.
inline std::vector<at::Tensor>& released() {
  static std::vector<at::Tensor> tensors;
  return tensors;
}

struct KeepingHooks final : torch::autograd::SavedVariableHooks {
  ~KeepingHooks() override {
    if (kept.defined()) released().push_back(kept);
  }
  void call_pack_hook(const at::Tensor& tensor) override { kept = tensor.detach(); }
  at::Tensor call_unpack_hook() override { return kept; }
  at::Tensor kept;
};

struct HookingEngine final : torch::autograd::Engine {
  ~HookingEngine() override { stop(); }
  std::unique_ptr<torch::autograd::SavedVariableHooks> get_default_saved_variable_hooks() override {
    return std::make_unique<KeepingHooks>();
  }
  static Engine& instance() {
    static HookingEngine engine;
    return engine;
  }
};

/// The nodes of the graph that ends in `root`, in the order in which they were made.
inline std::vector<torch::autograd::Node*> nodes_of(torch::autograd::Node* root) {
  std::set<torch::autograd::Node*> seen = {root};
  std::vector<torch::autograd::Node*> nodes = {root};
  for (std::size_t i = 0; i < nodes.size(); ++i)
    for (const torch::autograd::Edge& edge : nodes[i]->next_edges())
      if (edge.is_valid() && seen.insert(edge.function.get()).second)
        nodes.push_back(edge.function.get());
  std::ranges::sort(nodes, {}, [](const auto* node) { return node->sequence_nr(); });
  return nodes;
}

/// "torch::autograd::CppNode<ringlet::nn::(anonymous namespace)::GegluFunction>" as
/// "GegluFunction".
inline std::string short_name(std::string name) {
  if (!name.starts_with("torch::autograd::CppNode<")) return name;
  name = name.substr(0, name.find_last_not_of('>') + 1);
  return name.substr(name.rfind(':') + 1);
}

struct Keeper {
  std::int64_t tensors = 0, bytes = 0;
  std::map<std::string, std::int64_t> bytes_by_shape;
};

inline Json keepers_json(const std::map<std::string, Keeper>& keepers) {
  Json json = Json::object();
  for (const auto& [name, keeper] : keepers)
    json[name] = {
        {"tensors", keeper.tensors}, {"bytes", keeper.bytes}, {"shapes", keeper.bytes_by_shape}};
  return json;
}

/// "saved_bytes", "live_bytes" and "keepers" of the graph that ends in make_loss(): a scalar that
/// knows its gradient. There are no backward passes in this program afterwards.
inline Json count_saved(const std::function<at::Tensor()>& make_loss) {
  torch::autograd::set_default_engine_stub(&HookingEngine::instance);
  const nn::ByteCount allocated;
  const at::Tensor loss = make_loss();
  const std::map<const void*, std::size_t> live = allocated.blocks();
  const std::int64_t live_bytes = allocated.now();

  std::map<std::string, Keeper> keepers;
  std::set<const void*> counted;
  std::int64_t bytes = 0;
  for (torch::autograd::Node* node : nodes_of(loss.grad_fn().get())) {
    released().clear();
    node->release_variables();
    for (const at::Tensor& tensor : released()) {
      const void* const data = tensor.storage().data();
      const auto place = live.find(data);
      if (place == live.end() || !counted.insert(data).second) continue;
      const auto size = static_cast<std::int64_t>(place->second);
      Keeper& keeper = keepers[short_name(node->name())];
      ++keeper.tensors;
      keeper.bytes += size;
      keeper.bytes_by_shape[c10::str(tensor.sizes())] += size;
      bytes += size;
    }
  }
  return {{"saved_bytes", bytes}, {"live_bytes", live_bytes}, {"keepers", keepers_json(keepers)}};
}

}  // namespace ringlet::bench
