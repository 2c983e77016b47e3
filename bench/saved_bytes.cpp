// What a training step keeps for its backward pass, counted: ringlet's side of
// bench/compare_saved.py.
//
//     ringlet_bench_saved UNET_FOLDER METHOD [SIDE]
//
// The step is that of ringlet_bench_train. After its forward pass every storage that autograd has
// saved is counted once, as torch.autograd.graph.saved_tensors_hooks would show it: the engine that
// hands out hooks is replaced, as Python replaces it. What was there before the pass (weights,
// parameters, inputs) is left out. "live" is what the CPU's allocator has given out during the pass
// and not got back, whoever holds it. Prints one JSON object.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>

#include "bench/unet_training.h"
#include "ringlet/nn/allocation_count.h"

namespace {

using namespace ringlet;

/// Tensors that the nodes let go of, in the order in which they do.
std::vector<at::Tensor>& released() {
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
std::vector<torch::autograd::Node*> nodes_of(torch::autograd::Node* root) {
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
std::string short_name(std::string name) {
  if (!name.starts_with("torch::autograd::CppNode<")) return name;
  name = name.substr(0, name.find_last_not_of('>') + 1);
  return name.substr(name.rfind(':') + 1);
}

struct Keeper {
  std::int64_t tensors = 0, bytes = 0;
  std::map<std::string, std::int64_t> bytes_by_shape;
};

Json keepers_json(const std::map<std::string, Keeper>& keepers) {
  Json json = Json::object();
  for (const auto& [name, keeper] : keepers)
    json[name] = {
        {"tensors", keeper.tensors}, {"bytes", keeper.bytes}, {"shapes", keeper.bytes_by_shape}};
  return json;
}

Json count(bench::UNetTraining& training) {
  training.loss().backward();  // lays out what is laid out once
  torch::autograd::set_default_engine_stub(&HookingEngine::instance);
  const nn::AllocationCount allocations(training.device);
  const at::Tensor loss = training.loss();
  const std::map<const void*, std::size_t> live = allocations.blocks();
  const std::int64_t live_bytes = allocations.bytes();

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
  return {{"saved_bytes", bytes},
          {"live_bytes", live_bytes},
          {"parameters", training.adapters.parameter_count()},
          {"keepers", keepers_json(keepers)}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s UNET_FOLDER METHOD [SIDE]\n", argv[0]);
    return 2;
  }
  try {
    bench::UNetTraining training(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 32, false);
    std::printf("%s\n", count(training).dump().c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
