// The block of two streams, picture and text (Esser et al. 2024, figure 2b), which Stable Diffusion
// 3 calls JointTransformerBlock and FLUX FluxTransformerBlock.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/models/diffusion/feed_forward.h"
#include "ringlet/models/diffusion/joint_attention.h"
#include "ringlet/models/diffusion/modulation.h"
#include "ringlet/nn/block.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct JointBlockConfig {
  HeadsConfig heads;
  bool context_pre_only = false;  ///< the last block: nothing is made of the text any more
  bool dual_attention =
      false;  ///< attn2: the picture's tokens among themselves, too (SD 3.5 medium)
};

/// The tokens of a picture [B, N, width] and of its text [B, T, width].
struct TokenStreams {
  at::Tensor picture;
  at::Tensor text;
};

class JointTransformerBlock {
 public:
  JointTransformerBlock(const nn::WeightSource& source, const JointBlockConfig& config);

  /// time [B, width]; rotations (rotary.h) of the text's tokens, then the picture's, or undefined.
  /// The text is undefined after a block that is context_pre_only.
  TokenStreams forward(const TokenStreams& tokens, const at::Tensor& time,
                       const at::Tensor& rotations = {}) const;

 private:
  /// What the text's stream has where it goes on.
  struct ContextPath {
    ContextPath(const nn::WeightSource& source, std::int64_t width);
    AdaLayerNormZero norm1;
    FeedForward ff;
  };

  TokenStreams compute(const TokenStreams& tokens, const at::Tensor& time,
                       const at::Tensor& rotations) const;
  at::Tensor finish_picture(const at::Tensor& picture, const at::Tensor& attended,
                            const std::vector<Modulation>& modulations) const;

  nn::Block block_;
  AdaLayerNormZero norm1_;
  std::optional<ContextPath> context_;
  std::optional<AdaLayerNormContinuous> norm1_context_;  ///< in the place of context_
  JointAttention attn_;
  std::optional<SelfAttention> attn2_;
  FeedForward ff_;
};

}  // namespace ringlet::models
