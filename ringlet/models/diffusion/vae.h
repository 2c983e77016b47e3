// AutoencoderKL: the image autoencoder of latent diffusion (Rombach et al. 2022, §3.1).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/models/diffusion/blocks.h"
#include "ringlet/nn/attention.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/norm.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

struct VaeConfig {
  std::int64_t in_channels = 3;
  std::int64_t out_channels = 3;
  std::int64_t latent_channels = 4;
  std::vector<std::int64_t> block_out_channels = {128, 256, 512, 512};
  std::int64_t layers_per_block = 2;
  std::int64_t groups = 32;
  std::int64_t sample_size = 512;  ///< pixels; the usual side of tiles
  double scaling_factor = 0.18215;
  double shift_factor = 0.0;
  bool use_quant_conv = true;
  bool use_post_quant_conv = true;
  bool mid_block_attention = true;

  /// Reads a vae/config.json. Throws Error(bad_format | unsupported).
  static VaeConfig from_json(const Json& json, const std::string& where);

  /// Pixels per latent along one side (8 for Stable Diffusion).
  std::int64_t downscale() const { return std::int64_t{1} << (block_out_channels.size() - 1); }
};

/// Diagonal Gaussian over latents: mean and log variance [B, latent_channels, h, w].
struct LatentDistribution {
  at::Tensor mean;
  at::Tensor log_variance;  ///< clamped to [-30, 20]

  /// mean + exp(log_variance / 2) * noise.
  at::Tensor sample(const at::Tensor& noise) const;
};

/// Single-head attention over the pixels, with group norm and a residual.
class VaeAttention {
 public:
  VaeAttention(const nn::WeightSource& source, std::int64_t channels, std::int64_t groups);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  nn::GroupNorm group_norm_;
  nn::Attention attention_;
};

class VaeMidBlock {
 public:
  VaeMidBlock(const nn::WeightSource& source, const VaeConfig& config);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  ResnetBlock2D resnet_in_;
  std::optional<VaeAttention> attention_;
  ResnetBlock2D resnet_out_;
};

class VaeEncoder {
 public:
  VaeEncoder(const nn::WeightSource& source, const VaeConfig& config);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  struct DownBlock {
    std::vector<ResnetBlock2D> resnets;
    std::optional<Downsample2D> downsampler;
  };
  nn::Conv2d conv_in_;
  std::vector<DownBlock> down_blocks_;
  VaeMidBlock mid_block_;
  nn::GroupNorm conv_norm_out_;
  nn::Conv2d conv_out_;
};

class VaeDecoder {
 public:
  VaeDecoder(const nn::WeightSource& source, const VaeConfig& config);
  at::Tensor forward(const at::Tensor& z) const;

 private:
  struct UpBlock {
    std::vector<ResnetBlock2D> resnets;
    std::optional<Upsample2D> upsampler;
  };
  nn::Conv2d conv_in_;
  VaeMidBlock mid_block_;
  std::vector<UpBlock> up_blocks_;
  nn::GroupNorm conv_norm_out_;
  nn::Conv2d conv_out_;
};

/// How to bound the memory of large images and batches.
struct VaeOptions {
  bool slicing = false;  ///< one image of the batch at a time; the result is the same
  /// Side of overlapping tiles, in pixels, that are blended; the result differs slightly. 0 =
  /// whole.
  std::int64_t tile = 0;
};

class AutoencoderKL {
 public:
  AutoencoderKL(const nn::WeightSource& source, const VaeConfig& config);

  /// images [B, 3, H, W] in [-1, 1] -> distribution over unscaled latents [B, C, H/8, W/8].
  LatentDistribution encode(const at::Tensor& images, const VaeOptions& options = {}) const;

  /// Unscaled latents [B, C, h, w] -> images [B, 3, 8h, 8w], about [-1, 1].
  at::Tensor decode(const at::Tensor& latents, const VaeOptions& options = {}) const;

  /// Latents between the autoencoder's own scale and the U-Net's unit scale.
  at::Tensor scale(const at::Tensor& latents) const;
  at::Tensor unscale(const at::Tensor& latents) const;

  const VaeConfig& config() const { return config_; }

 private:
  at::Tensor moments(const at::Tensor& images) const;
  at::Tensor pixels(const at::Tensor& latents) const;

  VaeConfig config_;
  VaeEncoder encoder_;
  VaeDecoder decoder_;
  std::optional<nn::Conv2d> quant_conv_, post_quant_conv_;
};

}  // namespace ringlet::models
