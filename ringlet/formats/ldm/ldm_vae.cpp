#include "ringlet/formats/ldm/ldm_vae.h"

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/formats/ldm/ldm_names.h"
#include "ringlet/formats/renamed_store.h"

namespace ringlet::formats {
namespace {

std::optional<std::string> vae_resnet_name(const std::string& rest) {
  if (const auto renamed = replace_prefix(rest, {{"nin_shortcut.", "conv_shortcut."}}))
    return renamed;
  for (const char* same : {"norm1.", "conv1.", "norm2.", "conv2."})
    if (rest.starts_with(same)) return rest;
  return std::nullopt;
}

std::optional<std::string> middle_name(const std::string& rest) {
  if (const auto attention = replace_prefix(rest, {{"attn_1.norm.", "attentions.0.group_norm."},
                                                   {"attn_1.q.", "attentions.0.to_q."},
                                                   {"attn_1.k.", "attentions.0.to_k."},
                                                   {"attn_1.v.", "attentions.0.to_v."},
                                                   {"attn_1.proj_out.", "attentions.0.to_out.0."}}))
    return attention;
  for (const auto& [from, to] :
       {std::pair{"block_1.", "resnets.0."}, std::pair{"block_2.", "resnets.1."}}) {
    if (!rest.starts_with(from)) continue;
    const auto name = vae_resnet_name(rest.substr(std::string_view(from).size()));
    return name ? std::optional(to + *name) : std::nullopt;
  }
  return std::nullopt;
}

/// "3.block.1.norm1.weight" of down or up.
std::optional<std::string> level_name(const std::string& rest, bool up, std::int64_t levels) {
  const std::size_t dot = rest.find('.');
  if (dot == 0 || dot == std::string::npos || dot > 2) return std::nullopt;
  if (rest.find_first_not_of("0123456789") != dot) return std::nullopt;
  const std::int64_t level = std::stoll(rest.substr(0, dot));
  if (level >= levels) return std::nullopt;
  // LDM counts the decoder's levels from the full resolution, diffusers from the latents.
  const std::string block = up ? "up_blocks." + std::to_string(levels - 1 - level) + "."
                               : "down_blocks." + std::to_string(level) + ".";
  const std::string inner = rest.substr(dot + 1);
  if (const auto sampler = replace_prefix(
          inner, {{"downsample.", "downsamplers.0."}, {"upsample.", "upsamplers.0."}}))
    return block + *sampler;
  if (!inner.starts_with("block.")) return std::nullopt;
  const std::size_t after = inner.find('.', 6);
  if (after == std::string::npos) return std::nullopt;
  const auto name = vae_resnet_name(inner.substr(after + 1));
  if (!name) return std::nullopt;
  return block + "resnets." + inner.substr(6, after - 6) + "." + *name;
}

std::optional<std::string> diffusers_name(const std::string& name, std::int64_t levels) {
  for (const char* same : {"quant_conv.", "post_quant_conv."})
    if (name.starts_with(same)) return name;
  for (const std::string half : {"encoder.", "decoder."}) {
    if (!name.starts_with(half)) continue;
    const std::string rest = name.substr(half.size());
    std::optional<std::string> inner;
    if (rest.starts_with("conv_in.") || rest.starts_with("conv_out."))
      inner = rest;
    else if (rest.starts_with("norm_out."))
      inner = "conv_" + rest;
    else if (rest.starts_with("mid.")) {
      inner = middle_name(rest.substr(4));
      if (inner) inner = "mid_block." + *inner;
    } else if (rest.starts_with("down."))
      inner = level_name(rest.substr(5), false, levels);
    else if (rest.starts_with("up."))
      inner = level_name(rest.substr(3), true, levels);
    return inner ? std::optional(half + *inner) : std::nullopt;
  }
  return std::nullopt;
}

std::set<std::string> names_under(const nn::TensorStore& store, const std::string& prefix) {
  std::set<std::string> names;
  for (const std::string& name : store.names())
    if (name.starts_with(prefix)) names.insert(name.substr(prefix.size()));
  return names;
}

std::string level_key(std::int64_t level, std::int64_t block) {
  return "encoder.down." + std::to_string(level) + ".block." + std::to_string(block) +
         ".conv1.weight";
}

std::int64_t count_levels(const std::set<std::string>& names) {
  std::int64_t levels = 0;
  while (names.contains(level_key(levels, 0))) ++levels;
  return levels;
}

/// Groups of the norms: 32, or in small networks as many as all widths can be divided into.
std::int64_t norm_groups(const std::vector<std::int64_t>& channels) {
  std::int64_t groups = 32;
  for (const std::int64_t width : channels) groups = std::gcd(groups, width);
  return groups;
}

/// What an autoencoder under diffusers' names is like.
Json vae_config_json(const nn::TensorStore& vae, const LatentScale& scale) {
  const auto has = [&](const std::string& name) { return vae.find(name, {}, {}).has_value(); };
  const auto size = [&](const std::string& name, std::int64_t axis) {
    const auto tensor = vae.find(name, {}, {});
    if (!tensor || tensor->dim() <= axis)
      throw Error(ErrorCode::bad_format, vae.description(),
                  "there is no tensor for \"" + name + "\" of the autoencoder",
                  "the file holds no complete autoencoder");
    return tensor->size(axis);
  };
  const auto convolution = [](std::size_t level, std::int64_t block) {
    return "encoder.down_blocks." + std::to_string(level) + ".resnets." + std::to_string(block) +
           ".conv1.weight";
  };
  std::vector<std::int64_t> channels;
  while (has(convolution(channels.size(), 0)))
    channels.push_back(size(convolution(channels.size(), 0), 0));
  std::int64_t layers = 0;
  while (has(convolution(0, layers))) ++layers;
  Json config = {
      {"_class_name", "AutoencoderKL"},
      {"in_channels", size("encoder.conv_in.weight", 1)},
      {"out_channels", size("decoder.conv_out.weight", 0)},
      {"latent_channels", size("decoder.conv_in.weight", 1)},
      {"block_out_channels", channels},
      {"layers_per_block", layers},
      {"norm_num_groups", norm_groups(channels)},
      {"down_block_types", std::vector<std::string>(channels.size(), "DownEncoderBlock2D")},
      {"up_block_types", std::vector<std::string>(channels.size(), "UpDecoderBlock2D")},
      {"sample_size", scale.sample_size},
      {"scaling_factor", scale.scaling_factor}};
  if (scale.shift_factor) config["shift_factor"] = *scale.shift_factor;
  if (!has("quant_conv.weight")) config["use_quant_conv"] = false;
  if (!has("post_quant_conv.weight")) config["use_post_quant_conv"] = false;
  return config;
}

/// Whether a name without prefix is one of an autoencoder.
bool is_of_autoencoder(const std::string& name) {
  static constexpr std::array kParts = {"encoder.", "decoder.", "quant_conv.", "post_quant_conv."};
  return std::ranges::any_of(kParts, [&](const char* part) { return name.starts_with(part); });
}

/// diffusers' names of all tensors under `prefix`; unknown tensors keep their name.
std::map<std::string, TensorOrigin> vae_origins(const nn::TensorStore& store,
                                                const std::string& prefix) {
  const std::set<std::string> names = names_under(store, prefix);
  const bool diffusers = std::ranges::any_of(
      names, [](const std::string& name) { return name.starts_with("encoder.down_blocks."); });
  const std::int64_t levels = count_levels(names);
  std::map<std::string, TensorOrigin> origins;
  for (const std::string& name : names) {
    if (name.starts_with("loss.")) continue;  // the discriminator of the autoencoder's training
    if (prefix.empty() && !is_of_autoencoder(name)) continue;
    const auto translated = diffusers ? std::optional(name) : diffusers_name(name, levels);
    const std::string target = translated.value_or(prefix + name);
    origins[target] = {.name = prefix + name,
                       .drop_kernel = target.find(".attentions.0.to_") != std::string::npos};
  }
  return origins;
}

}  // namespace

LatentScale stable_diffusion_scale() { return {}; }
LatentScale stable_diffusion_xl_scale() { return {.sample_size = 1024, .scaling_factor = 0.13025}; }
LatentScale stable_diffusion_3_scale() {
  return {.sample_size = 1024, .scaling_factor = 1.5305, .shift_factor = 0.0609};
}
LatentScale flux_scale() {
  return {.sample_size = 1024, .scaling_factor = 0.3611, .shift_factor = 0.1159};
}

std::optional<std::string> find_autoencoder(const nn::TensorStore& store) {
  const std::vector<std::string> names = store.names();
  for (const char* prefix : {"first_stage_model.", "vae.", ""})
    if (std::ranges::binary_search(names, std::string(prefix) + "decoder.conv_in.weight"))
      return prefix;
  return std::nullopt;
}

SingleFileComponent open_autoencoder(const std::shared_ptr<const nn::TensorStore>& store,
                                     const std::string& prefix, const LatentScale& scale) {
  // Files of before diffusers 0.14 have other names of the attention.
  const auto vae = with_current_attention_names(
      std::make_shared<RenamedStore>(store, vae_origins(*store, prefix)));
  return {vae_config_json(*vae, scale), vae};
}

}  // namespace ringlet::formats
