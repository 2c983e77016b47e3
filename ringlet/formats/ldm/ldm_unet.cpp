#include "ringlet/formats/ldm/ldm_unet.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/formats/ldm/ldm_names.h"

namespace ringlet::formats {
namespace {

class Shapes {
 public:
  Shapes(const nn::TensorStore& store, const std::string& prefix) : store_(store), prefix_(prefix) {
    for (const std::string& name : store.names())
      if (name.starts_with(prefix)) names_.insert(name.substr(prefix.size()));
  }
  bool has(const std::string& name) const { return names_.contains(name); }
  nn::Shape of(const std::string& name) const {
    const auto tensor = store_.find(prefix_ + name, {}, {});
    if (!tensor)
      throw Error(ErrorCode::bad_format, store_.description(),
                  "tensor \"" + prefix_ + name + "\" is missing",
                  "the file is not a complete Stable Diffusion checkpoint");
    return tensor->sizes().vec();
  }
  std::int64_t size(const std::string& name, std::size_t axis) const {
    const nn::Shape shape = of(name);
    if (axis >= shape.size())
      throw Error(ErrorCode::bad_format, store_.description(),
                  "tensor \"" + prefix_ + name + "\" has too few dimensions");
    return shape[axis];
  }
  /// Number of transformer layers of the attention block `name`.
  std::int64_t transformer_depth(const std::string& name) const {
    std::int64_t depth = 0;
    while (has(name + ".transformer_blocks." + std::to_string(depth) + ".norm1.weight")) ++depth;
    return depth;
  }

 private:
  const nn::TensorStore& store_;
  std::string prefix_;
  std::set<std::string> names_;
};

void read_input_blocks(const Shapes& shapes, LdmUNet& unet) {
  std::int64_t level = 0;
  std::int64_t index = 0;
  for (std::int64_t i = 1;; ++i) {
    const std::string block = "input_blocks." + std::to_string(i);
    if (shapes.has(block + ".0.op.weight")) {
      unet.input_blocks.push_back({level, 0, true});
      ++level;
      index = 0;
      continue;
    }
    if (!shapes.has(block + ".0.in_layers.0.weight")) return;
    unet.input_blocks.push_back({level, index, false});
    if (index == 0) {
      unet.channels.push_back(shapes.size(block + ".0.out_layers.3.weight", 0));
      unet.depth.push_back(shapes.transformer_depth(block + ".1"));
    }
    unet.layers_per_block = ++index;
  }
}

/// Block and sub-block of "output_blocks.5.1.rest", or nothing.
struct LdmAddress {
  std::int64_t block;
  std::int64_t part;
  std::string rest;
};

std::optional<LdmAddress> address(std::string_view name, std::string_view list) {
  if (!name.starts_with(list)) return std::nullopt;
  name.remove_prefix(list.size());
  LdmAddress out{};
  const char* end = name.data() + name.size();
  auto [after_block, problem] = std::from_chars(name.data(), end, out.block);
  if (problem != std::errc() || after_block == end || *after_block != '.') return std::nullopt;
  auto [after_part, trouble] = std::from_chars(after_block + 1, end, out.part);
  if (trouble != std::errc() || after_part == end || *after_part != '.') return std::nullopt;
  out.rest = std::string(after_part + 1, end);
  return out;
}

const NameTable& resnet_names() {
  static const NameTable table = {
      {"in_layers.0.", "norm1."},          {"in_layers.2.", "conv1."},
      {"emb_layers.1.", "time_emb_proj."}, {"out_layers.0.", "norm2."},
      {"out_layers.3.", "conv2."},         {"skip_connection.", "conv_shortcut."}};
  return table;
}

/// What stands outside the lists of blocks.
const NameTable& outer_names() {
  static const NameTable table = {{"time_embed.0.", "time_embedding.linear_1."},
                                  {"time_embed.2.", "time_embedding.linear_2."},
                                  {"label_emb.0.0.", "add_embedding.linear_1."},
                                  {"label_emb.0.2.", "add_embedding.linear_2."},
                                  {"input_blocks.0.0.", "conv_in."},
                                  {"out.0.", "conv_norm_out."},
                                  {"out.2.", "conv_out."}};
  return table;
}

std::optional<std::string> resnet_name(const std::string& rest) {
  return replace_prefix(rest, resnet_names());
}

std::string place(const char* list, std::int64_t block, const char* kind, std::int64_t index) {
  return std::string(list) + "." + std::to_string(block) + "." + kind + "." +
         std::to_string(index) + ".";
}

std::optional<std::string> input_block_name(const LdmAddress& at, const LdmUNet& unet) {
  if (at.block < 1 || at.block > static_cast<std::int64_t>(unet.input_blocks.size()))
    return std::nullopt;
  const LdmBlock& block = unet.input_blocks[static_cast<std::size_t>(at.block - 1)];
  if (block.resampler) {
    if (!at.rest.starts_with("op.")) return std::nullopt;
    return place("down_blocks", block.level, "downsamplers", 0) + "conv." + at.rest.substr(3);
  }
  if (at.part == 1) return place("down_blocks", block.level, "attentions", block.index) + at.rest;
  const auto rest = resnet_name(at.rest);
  if (!rest) return std::nullopt;
  return place("down_blocks", block.level, "resnets", block.index) + *rest;
}

std::optional<std::string> output_block_name(const LdmAddress& at, const LdmUNet& unet) {
  const std::int64_t per_level = unet.layers_per_block + 1;
  const std::int64_t block = at.block / per_level;
  const std::int64_t index = at.block % per_level;
  if (block >= static_cast<std::int64_t>(unet.channels.size())) return std::nullopt;
  if (at.part > 0 && at.rest.starts_with("conv."))
    return place("up_blocks", block, "upsamplers", 0) + at.rest;
  if (at.part == 1) return place("up_blocks", block, "attentions", index) + at.rest;
  const auto rest = resnet_name(at.rest);
  if (!rest) return std::nullopt;
  return place("up_blocks", block, "resnets", index) + *rest;
}

std::optional<std::string> middle_block_name(const std::string& name) {
  if (name.starts_with("middle_block.1."))
    return "mid_block.attentions.0." + name.substr(std::string("middle_block.1.").size());
  for (const auto& [from, to] : {std::pair{"middle_block.0.", "mid_block.resnets.0."},
                                 std::pair{"middle_block.2.", "mid_block.resnets.1."}}) {
    if (!name.starts_with(from)) continue;
    const auto rest = resnet_name(name.substr(std::string_view(from).size()));
    return rest ? std::optional(to + *rest) : std::nullopt;
  }
  return std::nullopt;
}

std::optional<std::string> diffusers_name(const std::string& name, const LdmUNet& unet) {
  if (auto outer = replace_prefix(name, outer_names())) return outer;
  if (const auto at = address(name, "input_blocks.")) return input_block_name(*at, unet);
  if (const auto at = address(name, "output_blocks.")) return output_block_name(*at, unet);
  return middle_block_name(name);
}

/// The blocks of a U-Net under diffusers' names; nothing when LDM's numbering, which counts as many
/// residual blocks in every level, does not fit.
std::optional<LdmUNet> structure(const nn::ModuleIndex& index) {
  LdmUNet unet;
  for (std::int64_t level = 0;; ++level) {
    const std::string block = "down_blocks." + std::to_string(level) + ".";
    const auto convolution = [&](std::int64_t i) {
      return index.layers.find(block + "resnets." + std::to_string(i) + ".conv1");
    };
    if (convolution(0) == index.layers.end()) break;
    std::int64_t count = 0;
    for (; convolution(count) != index.layers.end(); ++count)
      unet.input_blocks.push_back({level, count, false});
    if (level > 0 && count != unet.layers_per_block) return std::nullopt;
    unet.layers_per_block = count;
    unet.channels.push_back(convolution(0)->second->stored_weight().size(0));
    if (index.layers.contains(block + "downsamplers.0.conv"))
      unet.input_blocks.push_back({level, 0, true});
  }
  return unet.channels.empty() ? std::nullopt : std::optional(unet);
}

bool has_attention(const nn::ModuleIndex& index, std::size_t up_block) {
  const std::string prefix = "up_blocks." + std::to_string(up_block) + ".attentions.";
  const auto first = index.layers.lower_bound(prefix);
  return first != index.layers.end() && first->first.starts_with(prefix);
}

/// LDM's names of the parts of such a U-Net, with a dot at the end.
std::vector<std::string> ldm_places(const LdmUNet& unet, const nn::ModuleIndex& index) {
  std::vector<std::string> places = {"middle_block.1."};
  for (const auto& outer : outer_names()) places.push_back(outer.first);
  const auto add_resnet = [&](const std::string& at) {
    for (const auto& part : resnet_names()) places.push_back(at + part.first);
  };
  add_resnet("middle_block.0.");
  add_resnet("middle_block.2.");
  for (std::size_t i = 0; i < unet.input_blocks.size(); ++i) {
    const std::string at = "input_blocks." + std::to_string(i + 1);
    if (unet.input_blocks[i].resampler) {
      places.push_back(at + ".0.op.");
      continue;
    }
    add_resnet(at + ".0.");
    places.push_back(at + ".1.");
  }
  const auto per_level = static_cast<std::size_t>(unet.layers_per_block) + 1;
  for (std::size_t i = 0; i < per_level * unet.channels.size(); ++i) {
    const std::string at = "output_blocks." + std::to_string(i);
    const bool attention = has_attention(index, i / per_level);
    add_resnet(at + ".0.");
    // The upsampler is the last part of its level's last block.
    if (i % per_level == per_level - 1)
      places.push_back(at + (attention ? ".2.conv." : ".1.conv."));
    if (attention) places.push_back(at + ".1.");
  }
  return places;
}

}  // namespace

LdmUNet read_ldm_unet(const nn::TensorStore& store, const std::string& prefix) {
  const Shapes shapes(store, prefix);
  LdmUNet unet;
  unet.in_channels = shapes.size("input_blocks.0.0.weight", 1);
  unet.out_channels = shapes.size("out.2.weight", 0);
  read_input_blocks(shapes, unet);
  if (unet.channels.empty() || unet.input_blocks.back().resampler)
    throw Error(ErrorCode::bad_format, store.description(), "the U-Net's blocks are incomplete",
                "download the checkpoint again");
  unet.middle_depth = shapes.transformer_depth("middle_block.1");
  const std::string middle = "middle_block.1.";
  unet.context_width = shapes.size(middle + "transformer_blocks.0.attn2.to_k.weight", 1);
  unet.linear_projection = shapes.of(middle + "proj_in.weight").size() == 2;
  if (shapes.has("label_emb.0.0.weight")) unet.label_width = shapes.size("label_emb.0.0.weight", 1);
  return unet;
}

Json unet_config_json(const LdmUNet& unet) {
  std::vector<std::string> down, up;
  std::vector<std::int64_t> heads, depth;
  const std::size_t levels = unet.channels.size();
  for (std::size_t i = 0; i < levels; ++i) {
    const bool attention = unet.depth[i] > 0;
    down.emplace_back(attention ? "CrossAttnDownBlock2D" : "DownBlock2D");
    up.insert(up.begin(), attention ? "CrossAttnUpBlock2D" : "UpBlock2D");
    // Stable Diffusion 1 has 8 heads everywhere; later models have heads of width 64.
    heads.push_back(unet.linear_projection ? std::max<std::int64_t>(1, unet.channels[i] / 64) : 8);
    depth.push_back(std::max<std::int64_t>(1, unet.depth[i]));
  }
  depth.back() = std::max<std::int64_t>(1, unet.middle_depth);
  Json json = {{"_class_name", "UNet2DConditionModel"},
               {"in_channels", unet.in_channels},
               {"out_channels", unet.out_channels},
               {"block_out_channels", unet.channels},
               {"layers_per_block", unet.layers_per_block},
               {"down_block_types", down},
               {"up_block_types", up},
               {"attention_head_dim", heads},
               {"transformer_layers_per_block", depth},
               {"cross_attention_dim", unet.context_width},
               {"use_linear_projection", unet.linear_projection},
               {"sample_size", 64}};
  if (unet.label_width > 0) {
    json["addition_embed_type"] = "text_time";
    json["addition_time_embed_dim"] = 256;
    json["projection_class_embeddings_input_dim"] = unet.label_width;
  }
  return json;
}

std::map<std::string, TensorOrigin> unet_origins(const nn::TensorStore& store,
                                                 const std::string& prefix, const LdmUNet& unet) {
  std::map<std::string, TensorOrigin> origins;
  for (const std::string& name : store.names()) {
    if (!name.starts_with(prefix)) continue;
    const auto translated = diffusers_name(name.substr(prefix.size()), unet);
    origins[translated.value_or(name)] = {.name = name};
  }
  return origins;
}

std::map<std::string, std::string> ldm_module_names(const nn::ModuleIndex& unet,
                                                    const std::vector<std::string>& modules) {
  const std::optional<LdmUNet> blocks = structure(unet);
  if (!blocks) return {};
  NameTable table;
  for (const std::string& place : ldm_places(*blocks, unet))
    if (const auto name = diffusers_name(place, *blocks)) table.emplace_back(*name, place);
  std::map<std::string, std::string> names;
  for (const std::string& module : modules)
    if (auto name = replace_prefix(module + ".", table)) {
      name->pop_back();
      names.emplace(module, *name);
    }
  return names;
}

}  // namespace ringlet::formats
