#include "ringlet/nn/weight_storage.h"

namespace ringlet::nn {

std::string weight_storage_name(WeightStorage storage) {
  for (const auto& [name, value] : kWeightStorageNames)
    if (value == storage) return name;
  return {};
}

}  // namespace ringlet::nn
