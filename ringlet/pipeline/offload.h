// Blocks of a model's frozen denoiser in host memory: how much that saves, and what it costs.
#pragma once

#include <cstdint>

#include "ringlet/core/option.h"
#include "ringlet/nn/network_memory.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::pipeline {

/// "offload_layers": a number of blocks, or auto.
void describe_offload(OptionList& list, LoadOptions& load);

/// Bytes of all weights that a model's networks of this role have on the device while they compute;
/// 0 on the CPU and for those that learn.
double weight_bytes(const TextToImageModel& model, NetworkRole role);

/// How many blocks the denoiser has that can be offloaded: 0 on the CPU and where it learns.
std::int64_t offloadable_blocks(const TextToImageModel& model);

/// How many of them are.
std::int64_t offloaded_blocks(const TextToImageModel& model);

/// What offloading so many blocks saves and copies. A pass with gradients computes each of them
/// once more. See nn::NetworkMemory::offload.
nn::OffloadEffect offload_effect(const TextToImageModel& model, std::int64_t blocks);

/// The fewest blocks that save so many bytes: all of them where none is enough, 0 for no bytes.
std::int64_t blocks_that_save(const TextToImageModel& model, double bytes);

/// Offloads so many blocks in place of those that were before. Not between a pass and its backward
/// pass. Throws Error(unsupported) where there are none.
void offload_denoiser(const TextToImageModel& model, std::int64_t blocks);

/// Bytes on the device beside the denoiser where so many pictures of this size are made at once.
double generation_bytes(const TextToImageModel& model, PictureSize size, std::int64_t pictures);

/// Offloads what "auto" asks for, where `load.offload_layers` is none: as few blocks as leave room
/// for `other_bytes` beside the denoiser in what is free on its device, and never fewer than
/// before. Returns how many are offloaded.
std::int64_t offload_for(const TextToImageModel& model, double other_bytes);

}  // namespace ringlet::pipeline
