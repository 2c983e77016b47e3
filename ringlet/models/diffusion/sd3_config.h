// Configuration of SD3Transformer2DModel as diffusers writes it (transformer/config.json).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ringlet/core/json.h"

namespace ringlet::models {

struct Sd3Config {
  std::int64_t sample_size = 128;  ///< latents' side that the table of positions is scaled for
  std::int64_t patch_size = 2;
  std::int64_t in_channels = 16;
  std::int64_t out_channels = 16;
  std::int64_t layers = 18;
  std::int64_t heads = 18;
  std::int64_t head_width = 64;
  std::int64_t text_width = 4096;    ///< "joint_attention_dim", of the token embeddings
  std::int64_t pooled_width = 2048;  ///< "pooled_projection_dim"
  std::int64_t table_side = 96;      ///< "pos_embed_max_size", in tokens
  /// "max_sequence_length": tokens of T5, or zeros in its place, unless a caller says otherwise. A
  /// field of ringlet's for small models; published models lack it and have what diffusers takes.
  std::int64_t t5_tokens = 256;
  std::vector<std::int64_t> dual_attention_layers;
  bool rms_norm = false;  ///< "qk_norm"

  /// Throws Error(bad_format) for contradictory fields, and Error(unsupported) that names a field
  /// which would change the result in a way ringlet does not implement.
  static Sd3Config from_json(const Json& json, const std::string& where);

  std::int64_t width() const { return heads * head_width; }
};

}  // namespace ringlet::models
