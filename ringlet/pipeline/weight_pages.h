// Weights that stay in their files until they are read.
#pragma once

#include <cstdint>
#include <set>

#include "ringlet/nn/layer.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::pipeline {

/// Bytes of a network's frozen weights that come into memory when it computes: the pages of a
/// mapped file, but for kernels in whose place there is a layout. Layers that are adapted read
/// theirs.
std::uint64_t page_bytes(const ModelNetwork& network,
                         const std::set<const nn::Layer*>& adapted = {});

/// The same of all networks with a role.
std::uint64_t page_bytes(const TextToImageModel& model, NetworkRole role,
                         const std::set<const nn::Layer*>& adapted = {});

}  // namespace ringlet::pipeline
