// Configuration of FluxTransformer2DModel as diffusers writes it (transformer/config.json).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ringlet/core/json.h"

namespace ringlet::models {

struct FluxConfig {
  std::int64_t in_channels = 64;   ///< of a token: four times the latents', more with a control
  std::int64_t out_channels = 64;  ///< of a token
  std::int64_t layers = 19;        ///< blocks of two streams
  std::int64_t single_layers = 38;
  std::int64_t heads = 24;
  std::int64_t head_width = 128;
  std::int64_t text_width = 4096;              ///< "joint_attention_dim"
  std::int64_t pooled_width = 768;             ///< "pooled_projection_dim"
  bool guidance_embeds = false;                ///< dev, which was distilled with guidance
  std::vector<std::int64_t> axes{16, 56, 56};  ///< "axes_dims_rope": shares of a head's width

  /// Throws Error(bad_format) for contradictory fields, and Error(unsupported) that names a field
  /// which would change the result in a way ringlet does not implement.
  static FluxConfig from_json(const Json& json, const std::string& where);

  std::int64_t width() const { return heads * head_width; }
};

}  // namespace ringlet::models
