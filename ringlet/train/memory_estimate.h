// How much memory a training run is going to need.
#pragma once

#include <cstdint>

#include "ringlet/pipeline/stable_diffusion.h"

namespace ringlet::train {

/// Bytes: the networks' weights, parameters with gradient and optimiser state, and what the U-Net
/// keeps for the backward pass of `rows` pictures of `resolution` pixels a side. An estimate from
/// the configuration; docs/performance.md compares it with measurements.
std::uint64_t expected_training_bytes(const pipeline::StableDiffusion& model,
                                      std::int64_t parameters, std::int64_t resolution,
                                      std::int64_t rows, bool gradient_checkpointing);

}  // namespace ringlet::train
