// SD3Transformer2DModel: the velocity network of Stable Diffusion 3 and 3.5 (Esser et al. 2024,
// "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", §4). Member names are
// the checkpoint's.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/models/diffusion/joint_block.h"
#include "ringlet/models/diffusion/modulation.h"
#include "ringlet/models/diffusion/patch_embedding.h"
#include "ringlet/models/diffusion/sd3_config.h"
#include "ringlet/models/diffusion/time_text_embedding.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

/// What the network sees besides the latents.
struct Sd3Conditions {
  at::Tensor timesteps;  ///< [B], 0..1000
  at::Tensor text;       ///< [B, T, text_width], the token embeddings of all encoders
  at::Tensor pooled;     ///< [B, pooled_width]
  /// What a control network adds to the patch embedding, [B, tokens, width]; undefined adds
  /// nothing.
  at::Tensor control = {};
};

class Sd3Transformer2DModel {
 public:
  Sd3Transformer2DModel(const nn::WeightSource& source, const Sd3Config& config);

  /// latents [B, in_channels, h, w] -> velocity [B, out_channels, h, w]. Throws
  /// Error(invalid_argument) for sizes that it has no patches or positions for, and Error(mismatch)
  /// for text of another width.
  at::Tensor forward(const at::Tensor& latents, const Sd3Conditions& conditions) const;

  const Sd3Config& config() const { return config_; }

 private:
  Sd3Config config_;
  PatchEmbedding pos_embed_;
  TimeTextEmbedding time_text_embed_;
  nn::Linear context_embedder_;
  std::vector<JointTransformerBlock> transformer_blocks_;
  AdaLayerNormContinuous norm_out_;
  nn::Linear proj_out_;
};

}  // namespace ringlet::models
