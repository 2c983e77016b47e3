#include "ringlet/models/diffusion/unet_config.h"

#include <algorithm>
#include <utility>

namespace ringlet::models {
namespace {

/// A field that holds one value for all levels or a list with one per level.
template <class T>
std::vector<T> per_level(const Json& json, const char* key, T fallback, std::size_t levels,
                         const std::string& where) {
  if (!json.contains(key) || !json[key].is_array())
    return std::vector<T>(levels, json_value<T>(json, key, fallback, where));
  const auto values = json_value<std::vector<T>>(json, key, {}, where);
  if (values.size() != levels)
    throw Error(ErrorCode::bad_format, where,
                std::string("field \"") + key + "\" has " + std::to_string(values.size()) +
                    " entries for " + std::to_string(levels) + " levels");
  return values;
}

[[noreturn]] void refuse(const std::string& where, const std::string& field,
                         const std::string& text) {
  throw Error(ErrorCode::unsupported, where, "field \"" + field + "\" is " + text,
              "ringlet supports the U-Nets of Stable Diffusion 1, 2 and XL");
}

/// Features of other models: the file must leave each at its neutral value.
void refuse_foreign_features(const Json& json, const std::string& where) {
  const std::vector<std::pair<const char*, Json>> neutral = {
      {"act_fn", "silu"},
      {"attention_type", "default"},
      {"class_embed_type", nullptr},
      {"class_embeddings_concat", false},
      {"cross_attention_norm", nullptr},
      {"dual_cross_attention", false},
      {"encoder_hid_dim", nullptr},
      {"encoder_hid_dim_type", nullptr},
      {"mid_block_scale_factor", 1},
      {"num_attention_heads", nullptr},
      {"num_class_embeds", nullptr},
      {"resnet_out_scale_factor", 1.0},
      {"resnet_skip_time_act", false},
      {"resnet_time_scale_shift", "default"},
      {"reverse_transformer_layers_per_block", nullptr},
      {"time_cond_proj_dim", nullptr},
      {"time_embedding_act_fn", nullptr},
      {"time_embedding_dim", nullptr},
      {"time_embedding_type", "positional"},
      {"timestep_post_act", nullptr}};
  for (const auto& [field, value] : neutral)
    if (json.contains(field) && !json[field].is_null() && json[field] != value)
      refuse(where, field, json[field].dump());
}

std::vector<std::string> block_types(const Json& json, const char* key, std::size_t levels,
                                     const std::string& where) {
  const auto types = json_require<std::vector<std::string>>(json, key, where);
  if (types.size() != levels)
    throw Error(ErrorCode::bad_format, where,
                std::string("\"") + key + "\" and \"block_out_channels\" differ in length");
  return types;
}

bool has_attention(const std::string& type, const char* plain, const char* attention,
                   const std::string& where) {
  if (type == attention) return true;
  if (type != plain) refuse(where, "block type", "\"" + type + "\"");
  return false;
}

void check(const UNetConfig& c, const std::string& where) {
  for (const UNetLevel& level : c.levels) {
    if (level.channels <= 0 || level.layers <= 0 || level.heads <= 0 ||
        level.transformer_layers < 0 || level.context_width <= 0)
      throw Error(ErrorCode::bad_format, where, "sizes must be positive");
    if (c.groups <= 0 || level.channels % c.groups != 0)
      throw Error(ErrorCode::bad_format, where,
                  std::to_string(level.channels) + " channels cannot be split into " +
                      std::to_string(c.groups) + " normalisation groups");
    if ((level.down_attention || level.up_attention) && level.channels % level.heads != 0)
      throw Error(ErrorCode::bad_format, where,
                  std::to_string(level.channels) + " channels cannot be split into " +
                      std::to_string(level.heads) + " heads");
  }
}

void read_levels(UNetConfig& c, const Json& json, const std::string& where) {
  const auto channels = json_require<std::vector<std::int64_t>>(json, "block_out_channels", where);
  const std::size_t n = channels.size();
  if (n == 0) throw Error(ErrorCode::bad_format, where, "\"block_out_channels\" is empty");
  const auto down = block_types(json, "down_block_types", n, where);
  const auto up = block_types(json, "up_block_types", n, where);
  const auto layers = per_level<std::int64_t>(json, "layers_per_block", 2, n, where);
  const auto heads = per_level<std::int64_t>(json, "attention_head_dim", 8, n, where);
  const auto depth = per_level<std::int64_t>(json, "transformer_layers_per_block", 1, n, where);
  const auto context = per_level<std::int64_t>(json, "cross_attention_dim", 1280, n, where);
  const auto only_cross = per_level<bool>(json, "only_cross_attention", false, n, where);
  for (std::size_t i = 0; i < n; ++i)
    c.levels.push_back(
        {.channels = channels[i],
         .layers = layers[i],
         .heads = heads[i],
         .transformer_layers = depth[i],
         .context_width = context[i],
         .only_cross_attention = only_cross[i],
         .down_attention = has_attention(down[i], "DownBlock2D", "CrossAttnDownBlock2D", where),
         .up_attention = has_attention(up[n - 1 - i], "UpBlock2D", "CrossAttnUpBlock2D", where)});
}

}  // namespace

UNetConfig UNetConfig::from_json(const Json& json, const std::string& where) {
  refuse_foreign_features(json, where);
  UNetConfig c;
  read_levels(c, json, where);
  c.in_channels = json_value(json, "in_channels", c.in_channels, where);
  c.out_channels = json_value(json, "out_channels", c.out_channels, where);
  c.sample_size = json_value(json, "sample_size", c.sample_size, where);
  c.groups = json_value(json, "norm_num_groups", c.groups, where);
  c.norm_eps = json_value(json, "norm_eps", c.norm_eps, where);
  c.downsample_padding = json_value(json, "downsample_padding", c.downsample_padding, where);
  c.center_input_sample = json_value(json, "center_input_sample", false, where);
  c.flip_sin_to_cos = json_value(json, "flip_sin_to_cos", true, where);
  c.freq_shift = json_value(json, "freq_shift", 0.0, where);
  c.linear_projection = json_value(json, "use_linear_projection", false, where);
  c.upcast_attention = json_value(json, "upcast_attention", false, where);
  c.conv_in_kernel = json_value(json, "conv_in_kernel", c.conv_in_kernel, where);
  c.conv_out_kernel = json_value(json, "conv_out_kernel", c.conv_out_kernel, where);

  const auto mid =
      json_value<std::string>(json, "mid_block_type", "UNetMidBlock2DCrossAttn", where);
  if (mid != "UNetMidBlock2DCrossAttn") refuse(where, "mid_block_type", "\"" + mid + "\"");

  const auto addition = json_value<std::string>(json, "addition_embed_type", "", where);
  if (!addition.empty() && addition != "text_time")
    refuse(where, "addition_embed_type", "\"" + addition + "\"");
  if ((c.text_time = addition == "text_time")) {
    c.addition_time_embed_dim = json_require<std::int64_t>(json, "addition_time_embed_dim", where);
    c.projection_input_dim =
        json_require<std::int64_t>(json, "projection_class_embeddings_input_dim", where);
  }
  check(c, where);
  return c;
}

}  // namespace ringlet::models
