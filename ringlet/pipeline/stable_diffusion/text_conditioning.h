// Prompts to what the U-Net is conditioned on.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/pipeline/text_stage.h"

namespace ringlet::pipeline {

struct TextConditions {
  at::Tensor embeddings;  ///< [prompts, tokens, width]
  at::Tensor pooled;      ///< [prompts, width] (SDXL), else undefined
};

/// Encodes prompts as diffusers does. Stable Diffusion 1 and 2: the last layer, or with
/// `clip_skip` n > 1 the n-th layer from the end under the final layer norm (the count of SD web
/// UIs and kohya). SDXL (two stages): the last layer but one of both encoders beside each other,
/// and the pooled output of the second; n > 2 goes further back.
/// A prompt that is too long is cut silently: see TextToImageModel::newly_cut.
TextConditions encode_prompts(const std::vector<TextStage>& stages,
                              std::span<const std::string> prompts, std::int64_t clip_skip,
                              at::Device device);

}  // namespace ringlet::pipeline
