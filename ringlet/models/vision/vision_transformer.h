// The vision transformer (Dosovitskiy et al. 2021) as three published networks that measure
// pictures: ViT as DINO trained it (Caron et al. 2021; transformers' ViTModel), DINOv2 (Oquab et
// al. 2024; Dinov2Model) and CLIP's picture side (Radford et al. 2021; CLIPVisionModel with its
// projection). Tensor names are those of the published checkpoints.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/norm.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct VisionConfig {
  enum class Kind { vit, dinov2, clip };

  Kind kind = Kind::vit;
  std::int64_t width = 768;
  std::int64_t layers = 12;
  std::int64_t heads = 12;
  std::int64_t inner_width = 3072;  ///< of the feed-forward layers
  std::int64_t patch = 16;
  std::int64_t image_size = 224;  ///< that positions were trained for
  std::int64_t projection = 0;    ///< CLIP's common width; 0 = none
  std::string activation = "gelu";
  double epsilon = 1e-12;
  bool gated = false;  ///< DINOv2's largest: SwiGLU

  /// Reads a config.json whose model_type is vit, dinov2, clip or clip_vision_model. Throws
  /// Error(bad_format | unsupported).
  static VisionConfig from_json(const Json& json, const std::string& where);
};

class VisionTransformer {
 public:
  /// `source` is the network's top, without the level of a class around it; with CLIP, what
  /// "vision_model" and "visual_projection" are in.
  VisionTransformer(const nn::WeightSource& source, const VisionConfig& config);

  /// pixels [B, 3, H, W], normalised as the network wants them, sides multiples of the patch -> the
  /// class token after the final norm, [B, width], or with CLIP its projection. Other sizes than
  /// the trained one get their positions by bicubic interpolation.
  at::Tensor features(const at::Tensor& pixels) const;

  const VisionConfig& config() const { return config_; }

 private:
  struct EncoderLayer {
    EncoderLayer(const nn::WeightSource& source, const VisionConfig& config);
    at::Tensor forward(const at::Tensor& x) const;
    at::Tensor feed_forward(const at::Tensor& x) const;

    std::int64_t heads;
    std::string activation;
    bool gated;
    nn::LayerNorm norm1, norm2;
    nn::Linear query, key, value, output;
    nn::Linear inner, outer;
    at::Tensor scale1, scale2;  ///< DINOv2's layer scale; undefined = 1
  };

  at::Tensor positions(std::int64_t rows, std::int64_t columns) const;

  VisionConfig config_;
  at::ScalarType dtype_;  ///< compute type
  at::Tensor class_token_, positions_, patch_weight_, patch_bias_;
  std::optional<nn::LayerNorm> first_norm_;
  std::vector<EncoderLayer> layers_;
  nn::LayerNorm last_norm_;
  std::optional<nn::Linear> projection_;
};

/// transformers' ViTForImageClassification: a linear classifier on the class token, names "vit.…"
/// and "classifier".
class VisionClassifier {
 public:
  VisionClassifier(const nn::WeightSource& source, const VisionConfig& config,
                   std::int64_t classes);

  /// pixels as VisionTransformer::features -> scores [B, classes].
  at::Tensor forward(const at::Tensor& pixels) const {
    return classifier_(network_.features(pixels));
  }

 private:
  VisionTransformer network_;
  nn::Linear classifier_;
};

}  // namespace ringlet::models
