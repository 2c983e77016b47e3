// FluxTransformer2DModel: the velocity network of FLUX.1 (Black Forest Labs 2024): blocks of two
// streams, then blocks of one. Member names are the checkpoint's.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/models/diffusion/flux_config.h"
#include "ringlet/models/diffusion/joint_attention.h"
#include "ringlet/models/diffusion/joint_block.h"
#include "ringlet/models/diffusion/modulation.h"
#include "ringlet/models/diffusion/time_text_embedding.h"
#include "ringlet/nn/block.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

/// Attention and feed-forward beside each other, on text and picture as one sequence (Dehghani et
/// al. 2023, "Scaling Vision Transformers to 22 Billion Parameters", §2).
class FluxSingleTransformerBlock {
 public:
  FluxSingleTransformerBlock(const nn::WeightSource& source, const HeadsConfig& heads);

  /// x [B, T + N, width], time [B, width] -> [B, T + N, width].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& time,
                     const at::Tensor& rotations) const;

 private:
  at::Tensor compute(const at::Tensor& x, const at::Tensor& time,
                     const at::Tensor& rotations) const;

  nn::Block block_;
  AdaLayerNormZero norm_;
  HeadProjections attn_;
  nn::Linear proj_mlp_, proj_out_;
};

/// What the network sees besides the packed latents.
struct FluxConditions {
  at::Tensor timesteps;      ///< [B], 0..1000
  at::Tensor text;           ///< [B, T, text_width], T5's token embeddings
  at::Tensor pooled;         ///< [B, pooled_width], CLIP's
  at::Tensor positions;      ///< [N, 3], those of the packed latents (packed_latents.h)
  at::Tensor guidance = {};  ///< [B] the guidance scale; exactly where the network embeds it
  /// What a control network adds to the embedded tokens, [B, N, width]; undefined adds nothing.
  at::Tensor control = {};
};

class FluxTransformer2DModel {
 public:
  FluxTransformer2DModel(const nn::WeightSource& source, const FluxConfig& config);

  /// Packed latents [B, N, in_channels] -> packed velocity [B, N, out_channels]. Throws
  /// Error(invalid_argument) for a guidance scale that is missing or has no embedding, and
  /// Error(mismatch) for text of another width.
  at::Tensor forward(const at::Tensor& packed, const FluxConditions& conditions) const;

  const FluxConfig& config() const { return config_; }

 private:
  void check(const FluxConditions& conditions) const;

  FluxConfig config_;
  TimeTextEmbedding time_text_embed_;
  nn::Linear context_embedder_, x_embedder_;
  std::vector<JointTransformerBlock> transformer_blocks_;
  std::vector<FluxSingleTransformerBlock> single_transformer_blocks_;
  AdaLayerNormContinuous norm_out_;
  nn::Linear proj_out_;
};

}  // namespace ringlet::models
