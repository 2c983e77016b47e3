// SegFormer (Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation
// with Transformers"): transformers' SegformerForSemanticSegmentation. Tensor names are those of
// the published checkpoints.
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

struct SegformerConfig {
  /// One of the hierarchy's stages, from the finest.
  struct Stage {
    std::int64_t width;
    std::int64_t layers;
    std::int64_t heads;
    std::int64_t reduction;  ///< keys and values come from a map so many times smaller a side
    std::int64_t patch;
    std::int64_t stride;
    std::int64_t inner_width;
  };
  std::vector<Stage> stages;
  std::int64_t decoder_width = 256;
  std::int64_t classes = 150;

  /// Reads a config.json whose model_type is segformer. Throws Error(bad_format | unsupported).
  static SegformerConfig from_json(const Json& json, const std::string& where);
};

class Segformer {
 public:
  Segformer(const nn::WeightSource& source, const SegformerConfig& config);

  /// pixels [B, 3, H, W], normalised -> class scores [B, classes, H / 4, W / 4].
  at::Tensor forward(const at::Tensor& pixels) const;

  const SegformerConfig& config() const { return config_; }

 private:
  struct EncoderLayer {
    EncoderLayer(const nn::WeightSource& source, const SegformerConfig::Stage& stage);
    /// tokens [B, height * width, C].
    at::Tensor forward(const at::Tensor& x, std::int64_t height, std::int64_t width) const;

    std::int64_t heads, inner_width;
    nn::LayerNorm layer_norm_1, layer_norm_2;
    nn::Linear query, key, value, output;
    std::optional<nn::Conv2d> reduction;
    std::optional<nn::LayerNorm> reduction_norm;
    nn::Linear dense1, dense2;
    at::Tensor depthwise_weight, depthwise_bias;
  };
  struct EncoderStage {
    EncoderStage(const nn::WeightSource& encoder, const SegformerConfig::Stage& stage,
                 std::int64_t number, std::int64_t in);
    at::Tensor forward(const at::Tensor& map) const;  ///< [B, in, h, w] -> [B, width, h', w']

    nn::Conv2d proj;
    nn::LayerNorm patch_norm;
    std::vector<EncoderLayer> layers;
    nn::LayerNorm norm;
  };

  SegformerConfig config_;
  std::vector<EncoderStage> stages_;
  std::vector<nn::Linear> linear_c_;
  at::Tensor fuse_weight_;
  nn::BatchNorm fuse_norm_;
  nn::Conv2d classifier_;
};

}  // namespace ringlet::models
