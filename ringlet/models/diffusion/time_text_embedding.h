// CombinedTimestepTextProjEmbeddings: what modulates the blocks of Stable Diffusion 3 and FLUX.
#pragma once

#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>

#include "ringlet/models/diffusion/timestep_embedding.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

/// timestep_embedder(t) + text_embedder(pooled text), and guidance_embedder(g) of networks that
/// were distilled with guidance.
class TimeTextEmbedding {
 public:
  TimeTextEmbedding(const nn::WeightSource& source, std::int64_t width, std::int64_t pooled_width,
                    bool guided);

  /// timesteps [B] in 0..1000, pooled [B, pooled width], guidance [B] the scale times 1000, or
  /// undefined where the network has no embedding of it -> [B, width] in the type of `pooled`.
  at::Tensor forward(const at::Tensor& timesteps, const at::Tensor& pooled,
                     const at::Tensor& guidance = {}) const;

 private:
  TimestepEmbedding timestep_embedder_;
  std::optional<TimestepEmbedding> guidance_embedder_;
  TimestepEmbedding text_embedder_;
};

}  // namespace ringlet::models
