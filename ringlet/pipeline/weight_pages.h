// Weights that stay in their files until they are read.
#pragma once

#include <cstdint>
#include <set>

#include "ringlet/nn/layer.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::pipeline {

/// Bytes of a network's frozen weights that come into memory when it computes: the pages of a
/// mapped file, but for kernels in whose place there is a layout, and layouts that the first
/// backward pass makes. Layers that are adapted read their weights.
std::uint64_t page_bytes(const ModelNetwork& network,
                         const std::set<const nn::Layer*>& adapted = {});

/// The same of all networks with a role.
std::uint64_t page_bytes(const TextToImageModel& model, NetworkRole role,
                         const std::set<const nn::Layer*>& adapted = {});

/// Bytes that the first pass on the CPU brings in besides, measured: code, and what oneDNN keeps of
/// each shape of the denoiser's products (sampling and training, forward and `backward`).
std::uint64_t program_bytes(const TextToImageModel& model, bool backward);

}  // namespace ringlet::pipeline
