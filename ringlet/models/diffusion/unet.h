// The noise-prediction U-Net of Stable Diffusion 1, 2 and XL: UNet2DConditionModel
// (Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models";
// Podell et al. 2023 for XL). Member names are the checkpoint's.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/picture_size.h"
#include "ringlet/models/diffusion/blocks.h"
#include "ringlet/models/diffusion/timestep_embedding.h"
#include "ringlet/models/diffusion/transformer_2d.h"
#include "ringlet/models/diffusion/unet_config.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/norm.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

/// What a U-Net block sees besides the latents.
struct UNetContext {
  at::Tensor time;  ///< [B, time channels]
  at::Tensor text;  ///< [B, T, context width]
};

class UNetDownBlock {
 public:
  UNetDownBlock(const nn::WeightSource& source, const UNetConfig& config, std::size_t level);
  /// Appends every output to `skips`, which the way up consumes in reverse.
  at::Tensor forward(at::Tensor x, const UNetContext& context,
                     std::vector<at::Tensor>& skips) const;

 private:
  std::vector<ResnetBlock2D> resnets_;
  std::vector<Transformer2DModel> attentions_;
  std::optional<Downsample2D> downsampler_;
};

class UNetMidBlock {
 public:
  UNetMidBlock(const nn::WeightSource& source, const UNetConfig& config);
  at::Tensor forward(const at::Tensor& x, const UNetContext& context) const;

 private:
  ResnetBlock2D resnet_in_;
  Transformer2DModel attention_;
  ResnetBlock2D resnet_out_;
};

class UNetUpBlock {
 public:
  /// `level` counts as in the configuration: the block at the lowest resolution has the highest.
  UNetUpBlock(const nn::WeightSource& source, const UNetConfig& config, std::size_t level);
  at::Tensor forward(at::Tensor x, const UNetContext& context,
                     std::vector<at::Tensor>& skips) const;

 private:
  std::vector<ResnetBlock2D> resnets_;
  std::vector<Transformer2DModel> attentions_;
  std::optional<Upsample2D> upsampler_;
};

/// SDXL's conditioning besides the token embeddings.
struct AddedConditions {
  at::Tensor pooled_text;  ///< [B, pooled width]
  at::Tensor time_ids;     ///< [B, 6]: original h, w; crop top, left; target h, w (pixels)
};

/// SDXL's size conditioning as one row [1, 6]: the size that a picture had, what was cut off from
/// it once it was resized, and the size that is left, in pixels. On the host.
at::Tensor size_conditions(PictureSize original, std::int64_t crop_left, std::int64_t crop_top,
                           PictureSize target);

/// What the U-Net's blocks know of time: a timestep, and with SDXL sizes and pooled text, too.
class UNetTimeEmbedding {
 public:
  UNetTimeEmbedding(const nn::WeightSource& source, const UNetConfig& config);
  /// timesteps [B] -> [B, 4 * first channels]. Throws Error(invalid_argument) where `added` lacks.
  at::Tensor forward(const at::Tensor& timesteps, const AddedConditions* added,
                     at::ScalarType dtype) const;

 private:
  UNetConfig config_;
  TimestepEmbedding time_embedding_;
  std::optional<TimestepEmbedding> add_embedding_;
};

/// What control networks add inside the U-Net; what is undefined or empty adds nothing.
struct UNetResiduals {
  at::Tensor conv_in;             ///< to the first features, [B, channels, h, w]
  std::vector<at::Tensor> skips;  ///< to every skip, in the order of the way down
  at::Tensor middle;              ///< to the middle block's output
};

class UNet {
 public:
  UNet(const nn::WeightSource& source, const UNetConfig& config);

  /// latents [B, in_channels, h, w], timesteps [B], text [B, T, context width]; `added` is needed
  /// exactly when the configuration says text_time. Returns [B, out_channels, h, w].
  at::Tensor forward(const at::Tensor& latents, const at::Tensor& timesteps, const at::Tensor& text,
                     const AddedConditions* added = nullptr,
                     const UNetResiduals* residuals = nullptr) const;

  const UNetConfig& config() const { return config_; }

 private:
  UNetConfig config_;
  nn::Conv2d conv_in_;
  UNetTimeEmbedding time_;
  std::vector<UNetDownBlock> down_blocks_;
  UNetMidBlock mid_block_;
  std::vector<UNetUpBlock> up_blocks_;
  nn::GroupNorm conv_norm_out_;
  nn::Conv2d conv_out_;
};

}  // namespace ringlet::models
