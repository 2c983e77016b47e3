// Configuration of UNet2DConditionModel as diffusers writes it (unet/config.json).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ringlet/core/json.h"

namespace ringlet::models {

/// Per-level settings, from the highest resolution (level 0) down.
struct UNetLevel {
  std::int64_t channels;
  std::int64_t layers;  ///< residual blocks on the way down; one more on the way up
  std::int64_t heads;   ///< "attention_head_dim" in the file, which holds the number of heads
  std::int64_t transformer_layers;
  std::int64_t context_width;  ///< "cross_attention_dim"
  bool only_cross_attention = false;
  bool down_attention;  ///< CrossAttnDownBlock2D rather than DownBlock2D
  bool up_attention;    ///< CrossAttnUpBlock2D; levels are listed from level 0 here too
};

struct UNetConfig {
  std::int64_t in_channels = 4;  ///< 9 for inpainting models: latents, mask, masked image
  std::int64_t out_channels = 4;
  std::int64_t sample_size = 64;  ///< latents' side that the model was trained at
  std::vector<UNetLevel> levels;
  std::int64_t groups = 32;
  double norm_eps = 1e-5;
  std::int64_t downsample_padding = 1;
  bool center_input_sample = false;
  bool flip_sin_to_cos = true;
  double freq_shift = 0.0;
  bool linear_projection = false;
  bool upcast_attention = false;
  std::int64_t conv_in_kernel = 3;
  std::int64_t conv_out_kernel = 3;
  bool text_time = false;                    ///< SDXL's pooled text + size conditioning
  std::int64_t addition_time_embed_dim = 0;  ///< sinusoid width per size number
  std::int64_t projection_input_dim = 0;     ///< pooled width + 6 sinusoids

  /// Throws Error(bad_format) for contradictory fields and Error(unsupported), naming the field,
  /// for any feature outside Stable Diffusion 1, 2 and XL that would change the result.
  static UNetConfig from_json(const Json& json, const std::string& where);
};

}  // namespace ringlet::models
