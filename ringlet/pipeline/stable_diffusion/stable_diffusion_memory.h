// What a pass of Stable Diffusion's networks holds in memory, block by block. Counts are of
// numbers (activations), for one batch; docs/performance.md has the formulas.
#pragma once

#include <cstdint>
#include <vector>

#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/models/diffusion/unet_config.h"
#include "ringlet/pipeline/pass_memory.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::pipeline {

/// A training pass of the U-Net. `adapters` may be null; those of other components do not count.
PassBlocks unet_pass(const models::UNetConfig& config, const PassShape& shape,
                     const adapt::AdapterSet* adapters);

/// Its way down and its middle alone, all trained: a ControlNet.
PassBlocks controlnet_pass(const models::UNetConfig& config, const PassShape& shape);

/// The most that a pass of the U-Net without gradients holds.
double unet_inference(const models::UNetConfig& config, const PassShape& shape);

}  // namespace ringlet::pipeline
