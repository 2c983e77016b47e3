#include "ringlet/models/diffusion/sd3_config.h"

#include <algorithm>

#include "ringlet/core/error.h"
#include "ringlet/models/config_number.h"

namespace ringlet::models {
namespace {

void check(const Sd3Config& c, const Json& json, const std::string& where) {
  const auto captions = json_value(json, "caption_projection_dim", c.width(), where);
  if (captions != c.width())
    throw Error(ErrorCode::bad_format, where,
                "\"caption_projection_dim\" is " + std::to_string(captions) + ", but " +
                    std::to_string(c.heads) + " heads of " + std::to_string(c.head_width) +
                    " make a width of " + std::to_string(c.width()));
  if (c.width() % 4 != 0)
    throw Error(ErrorCode::bad_format, where, "the width must be a multiple of 4");
  if (c.sample_size < c.patch_size)
    throw Error(ErrorCode::bad_format, where, "\"sample_size\" is smaller than one patch");
  const bool inside = std::ranges::all_of(
      c.dual_attention_layers, [&](std::int64_t layer) { return layer >= 0 && layer < c.layers; });
  if (!inside)
    throw Error(ErrorCode::bad_format, where,
                "\"dual_attention_layers\" names a layer beyond \"num_layers\"");
}

}  // namespace

Sd3Config Sd3Config::from_json(const Json& json, const std::string& where) {
  Sd3Config c;
  const auto number = [&](const char* key, std::int64_t fallback) {
    return positive_number(json, key, fallback, where);
  };
  c.sample_size = number("sample_size", c.sample_size);
  c.patch_size = number("patch_size", c.patch_size);
  c.in_channels = number("in_channels", c.in_channels);
  c.out_channels = number("out_channels", c.in_channels);
  c.layers = number("num_layers", c.layers);
  c.heads = number("num_attention_heads", c.heads);
  c.head_width = number("attention_head_dim", c.head_width);
  c.text_width = number("joint_attention_dim", c.text_width);
  c.pooled_width = number("pooled_projection_dim", c.pooled_width);
  c.table_side = number("pos_embed_max_size", c.table_side);
  c.t5_tokens = number("max_sequence_length", c.t5_tokens);
  c.dual_attention_layers =
      json_value(json, "dual_attention_layers", c.dual_attention_layers, where);
  const auto norm = json_value<std::string>(json, "qk_norm", "", where);
  if (!norm.empty() && norm != "rms_norm")
    throw Error(ErrorCode::unsupported, where, "field \"qk_norm\" is \"" + norm + "\"",
                "ringlet supports \"rms_norm\" and none, as Stable Diffusion 3 and 3.5 have them");
  c.rms_norm = !norm.empty();
  check(c, json, where);
  return c;
}

}  // namespace ringlet::models
