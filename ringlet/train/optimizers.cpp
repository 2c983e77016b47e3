// The table of optimisers. A new one adds its class, or the function that makes it, and its row.
#include "ringlet/train/optimizers.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/train/optimizer_options.h"

namespace ringlet::train {
namespace {

/// The optimiser by its default numbers with those that were given.
template <class Options>
OptimizerSpec specified(const std::string& name, OptimizerSpec (*make)(const Options&),
                        const OptimizerNumbers& numbers) {
  Options options;
  if (numbers.betas) {
    if constexpr (requires { options.beta2; })
      std::tie(options.beta1, options.beta2) = *numbers.betas;
    else
      throw Error(ErrorCode::invalid_argument, Field("betas"), name + " has none",
                  "leave them out");
  }
  options.weight_decay = numbers.weight_decay.value_or(options.weight_decay);
  OptionList list;
  describe(list, options);
  read_optimizer_options(list, numbers.options, name);
  return make(options);
}

struct OptimizerEntry {
  std::string name;
  OptimizerSpec (*spec)(const std::string& name, const OptimizerNumbers& numbers);
};

template <auto make>
OptimizerSpec entry(const std::string& name, const OptimizerNumbers& numbers) {
  return specified(name, make, numbers);
}

const std::array<OptimizerEntry, 9> kOptimizers = {{
    {"adamw", entry<adamw>},
    {"adamw8bit", entry<adamw_8bit>},
    {"adafactor", entry<adafactor>},
    {"came", entry<came>},
    {"lion", entry<lion>},
    {"muon", entry<muon>},
    {"prodigy", entry<prodigy>},
    {"schedule-free", entry<schedule_free_adamw>},
    {"sgd", entry<sgd>},
}};

}  // namespace

std::vector<std::string> optimizer_names() {
  std::vector<std::string> names;
  for (const OptimizerEntry& entry : kOptimizers) names.push_back(entry.name);
  return names;
}

OptimizerSpec optimizer_from_name(const std::string& name, const OptimizerNumbers& numbers) {
  const auto found = std::ranges::find(kOptimizers, name, &OptimizerEntry::name);
  if (found != kOptimizers.end()) return found->spec(name, numbers);
  const std::vector<std::string> names = optimizer_names();
  const std::string near = nearest_name(name, names);
  throw Error(ErrorCode::invalid_argument, Field("optimizer"), "\"" + name + "\" is not known",
              near.empty() ? "use " + join(names, " or ") : "did you mean \"" + near + "\"?");
}

}  // namespace ringlet::train
