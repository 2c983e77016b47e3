// CLIP with both its sides (Radford et al. 2021), as it is trained: each picture finds its own text
// among those of a batch, and each text its picture.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "ringlet/models/text/clip_text.h"
#include "ringlet/models/vision/vision_transformer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

class Clip {
 public:
  Clip(const nn::WeightSource& source, const VisionConfig& vision, const ClipTextConfig& text);

  /// Pixels [B, 3, H, W] or ids [B, T] as vectors of length 1, [B, width].
  at::Tensor pictures(const at::Tensor& pixels) const;
  at::Tensor texts(const at::Tensor& ids) const;

  /// Symmetric cross entropy of the scaled cosines (transformers' CLIPModel with return_loss).
  /// Throws Error(mismatch) for other numbers of pictures than of texts.
  at::Tensor loss(const at::Tensor& pixels, const at::Tensor& ids) const;

  std::int64_t text_length() const { return text_.config().max_position_embeddings; }

 private:
  at::Tensor logit_scale_;
  VisionTransformer vision_;
  ClipTextModel text_;
};

}  // namespace ringlet::models
