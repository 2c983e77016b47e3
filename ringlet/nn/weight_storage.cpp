#include "ringlet/nn/weight_storage.h"

#include "ringlet/core/option.h"
#include "ringlet/nn/stored_weight.h"

namespace ringlet::nn {

std::string weight_storage_name(WeightStorage storage) {
  for (const auto& [name, value] : kWeightStorageNames)
    if (value == storage) return name;
  return "";
}

double bytes_per_number(WeightStorage storage) {
  // Rows of the networks' layers are hundreds to ten thousand numbers long.
  constexpr double kScaleOfRow = sizeof(float) / 1024.0;
  switch (storage) {
    case WeightStorage::as_stored:
      return 0.0;
    case WeightStorage::fp32:
      return 4.0;
    case WeightStorage::bf16:
      return 2.0;
    case WeightStorage::fp8:
    case WeightStorage::int8:
      return 1.0 + kScaleOfRow;
    case WeightStorage::nf4:
      return 0.5 + sizeof(float) / static_cast<double>(kNf4Block);
  }
  return 0.0;
}

Option& describe(OptionList& list, WeightStorage& storage) {
  return list.add("base_storage", choice("base_storage", storage, kWeightStorageNames),
                  "How the frozen weights of linear layers and convolutions are kept in memory; "
                  "they are widened for each call. fp8, int8 and nf4 round them: "
                  "docs/performance.md has what that changes");
}

}  // namespace ringlet::nn
