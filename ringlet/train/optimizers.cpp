// The table of optimisers. A new one adds its class, or the function that makes it, and its row.
#include "ringlet/train/optimizers.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::train {
namespace {

/// The default numbers with those that were given.
template <class Options>
Options with_numbers(const OptimizerNumbers& numbers) {
  Options options;
  if (numbers.betas) std::tie(options.beta1, options.beta2) = *numbers.betas;
  options.weight_decay = numbers.weight_decay.value_or(options.weight_decay);
  return options;
}

struct OptimizerEntry {
  std::string name;
  OptimizerSpec (*spec)(const OptimizerNumbers& numbers);
};

const std::array<OptimizerEntry, 2> kOptimizers = {{
    {"adamw", [](const OptimizerNumbers& n) { return adamw(with_numbers<AdamWOptions>(n)); }},
    {"lion", [](const OptimizerNumbers& n) { return lion(with_numbers<LionOptions>(n)); }},
}};

}  // namespace

std::vector<std::string> optimizer_names() {
  std::vector<std::string> names;
  for (const OptimizerEntry& entry : kOptimizers) names.push_back(entry.name);
  return names;
}

OptimizerSpec optimizer_from_name(const std::string& name, const OptimizerNumbers& numbers) {
  const auto entry = std::ranges::find(kOptimizers, name, &OptimizerEntry::name);
  if (entry != kOptimizers.end()) return entry->spec(numbers);
  const std::vector<std::string> names = optimizer_names();
  const std::string near = nearest_name(name, names);
  throw Error(ErrorCode::invalid_argument, Field("optimizer"), "\"" + name + "\" is not known",
              near.empty() ? "use " + join(names, " or ") : "did you mean \"" + near + "\"?");
}

}  // namespace ringlet::train
