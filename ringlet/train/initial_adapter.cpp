#include "ringlet/train/initial_adapter.h"

#include <map>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>

#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/sha256.h"

namespace ringlet::train {
namespace {

void check_choices(const AdapterTrainingOptions& o) {
  const adapt::TargetOptions& t = o.targets;
  for (const auto& [option, given] : {std::pair(Field("budget"), !o.budget.empty()),
                                      {Field("targets"), !t.presets.empty()},
                                      {Field("include"), !t.include.empty()},
                                      {Field("exclude"), !t.exclude.empty()},
                                      {Field("factors"), !o.factors.empty()}})
    if (given)
      throw Error(ErrorCode::invalid_argument, option,
                  "layers and sizes are those of the adapter that the run starts from",
                  "leave it out, or start without `init_adapter`");
}

/// Copies numbers by name; both have the same.
void fill(const adapt::AdapterSet& set, const adapt::AdapterSet& from, const std::string& where) {
  const at::NoGradGuard no_grad;
  const auto refuse = [&](const std::string& name) {
    throw Error(ErrorCode::invalid_argument, where,
                "\"" + name + "\" is not of the method that most layers have",
                "start from an adapter of one method");
  };
  std::map<std::string, at::Tensor> numbers;
  for (const auto& [name, tensor] : from.stored()) numbers.emplace(name, tensor);
  for (const auto& [name, tensor] : set.stored()) {
    const auto found = numbers.find(name);
    if (found == numbers.end()) continue;  // of a layer that is trained in full
    if (found->second.sizes() != tensor.sizes()) refuse(name);
    tensor.detach().copy_(found->second);
    numbers.erase(found);
  }
  if (!numbers.empty()) refuse(numbers.begin()->first);
}

}  // namespace

std::string start_from(std::optional<AdapterTraining>& adapters,
                       const AdapterTrainingOptions& options, const adapt::Components& components,
                       std::uint64_t seed, std::span<const adapt::Target> whole) {
  check_choices(options);
  const std::string where = options.init_adapter.string();
  const adapt::LoadedAdapter loaded = adapt::load_adapter(options.init_adapter, components);
  if (!loaded.info.new_layers.empty())
    throw Error(ErrorCode::unsupported, where, "the adapter has layers that the base lacks",
                "a run cannot start from it");
  AdapterTrainingOptions same = options;
  same.learning = loaded.set.method();
  same.factors = loaded.set.factors().entries();
  std::vector<adapt::Target> targets;
  for (const adapt::AdapterSet::Entry& entry : loaded.set.entries())
    targets.push_back(entry.target);
  adapters.emplace(same, targets, seed, whole);
  fill(adapters->set(), loaded.set, where);
  return sha256_file(options.init_adapter);
}

}  // namespace ringlet::train
