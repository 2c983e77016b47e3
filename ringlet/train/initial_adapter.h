// A run that starts from an adapter which was trained before.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "ringlet/adapt/set/targets.h"
#include "ringlet/train/adapter_training.h"

namespace ringlet::train {

/// Builds the adapters of `options.init_adapter`: its method, ranks, factors, layers and numbers.
/// `whole` are layers that are trained in full besides. Returns the file's SHA-256. Throws as
/// adapt::load_adapter, Error(invalid_argument) for layers or sizes that were chosen as well and
/// for a file whose layers have several methods, and Error(unsupported) for one with new layers.
std::string start_from(std::optional<AdapterTraining>& adapters,
                       const AdapterTrainingOptions& options, const adapt::Components& components,
                       std::uint64_t seed, std::span<const adapt::Target> whole);

}  // namespace ringlet::train
