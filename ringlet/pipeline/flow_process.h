// The noise process of models of rectified flow, from their files.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "ringlet/diffusion/rectified_flow.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::pipeline {

/// Pixels along a side of one latent, by the autoencoder's configuration.
std::int64_t pixels_per_latent(const ModelFiles& files);

/// The process of files.scheduler, for tokens of `patch` latents along a side. `spacing` is how the
/// family's pipelines space the steps; none = as the scheduler's class does it. Throws
/// Error(unsupported) for the scheduler of another process.
std::shared_ptr<const diffusion::RectifiedFlow> flow_process(
    const ModelFiles& files, std::int64_t patch,
    const std::optional<diffusion::Spacing>& spacing = std::nullopt);

}  // namespace ringlet::pipeline
