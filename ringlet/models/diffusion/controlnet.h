// ControlNet (Zhang et al. 2023): a copy of the U-Net's way down that sees a control picture as
// well and adds to the U-Net's skips. Member names are those of diffusers' ControlNetModel.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/models/diffusion/control_embedding.h"
#include "ringlet/models/diffusion/unet.h"

namespace ringlet::models {

struct ControlNetConfig {
  UNetConfig unet;  ///< of the way down and the middle; what it says of the way up is not used
  std::vector<std::int64_t> embedding_channels = {16, 32, 96, 256};
  bool blue_first = false;     ///< "controlnet_conditioning_channel_order": "bgr"
  bool pool_globally = false;  ///< "global_pool_conditions": residuals without places

  /// Throws Error(bad_format | unsupported) as UNetConfig::from_json.
  static ControlNetConfig from_json(const Json& json, const std::string& where);
};

class ControlNet {
 public:
  ControlNet(const nn::WeightSource& source, const ControlNetConfig& config);

  /// latents [B, C, h, w], timesteps [B], text [B, T, width], pictures [B, 3, H, W] in [0, 1];
  /// `added` as for the U-Net. Everything is multiplied by `strength`.
  UNetResiduals forward(const at::Tensor& latents, const at::Tensor& timesteps,
                        const at::Tensor& text, const at::Tensor& pictures, double strength = 1.0,
                        const AddedConditions* added = nullptr) const;

  const ControlNetConfig& config() const { return config_; }

 private:
  ControlNetConfig config_;
  nn::Conv2d conv_in_;
  UNetTimeEmbedding time_;
  ControlEmbedding controlnet_cond_embedding_;
  std::vector<UNetDownBlock> down_blocks_;
  UNetMidBlock mid_block_;
  std::vector<nn::Conv2d> controlnet_down_blocks_;
  nn::Conv2d controlnet_mid_block_;
};

}  // namespace ringlet::models
