#include "ringlet/models/diffusion/flux_config.h"

#include <algorithm>
#include <numeric>

#include "ringlet/core/error.h"
#include "ringlet/models/config_number.h"

namespace ringlet::models {
namespace {

void check(const FluxConfig& c, const std::string& where) {
  const bool even =
      std::ranges::all_of(c.axes, [](std::int64_t width) { return width > 0 && width % 2 == 0; });
  if (!even || c.axes.size() != 3 ||
      std::accumulate(c.axes.begin(), c.axes.end(), std::int64_t{0}) != c.head_width)
    throw Error(ErrorCode::bad_format, where,
                "\"axes_dims_rope\" must be three even numbers that add up to "
                "\"attention_head_dim\", " +
                    std::to_string(c.head_width));
}

}  // namespace

FluxConfig FluxConfig::from_json(const Json& json, const std::string& where) {
  FluxConfig c;
  const auto number = [&](const char* key, std::int64_t fallback) {
    return positive_number(json, key, fallback, where);
  };
  if (const std::int64_t patch = number("patch_size", 1); patch != 1)
    throw Error(ErrorCode::unsupported, where, "field \"patch_size\" is " + std::to_string(patch),
                "ringlet supports 1, as FLUX.1 has it: its latents are packed before");
  c.in_channels = number("in_channels", c.in_channels);
  c.out_channels = number("out_channels", c.in_channels);
  c.layers = number("num_layers", c.layers);
  c.single_layers = number("num_single_layers", c.single_layers);
  c.heads = number("num_attention_heads", c.heads);
  c.head_width = number("attention_head_dim", c.head_width);
  c.text_width = number("joint_attention_dim", c.text_width);
  c.pooled_width = number("pooled_projection_dim", c.pooled_width);
  c.guidance_embeds = json_value(json, "guidance_embeds", c.guidance_embeds, where);
  c.axes = json_value(json, "axes_dims_rope", c.axes, where);
  check(c, where);
  return c;
}

}  // namespace ringlet::models
