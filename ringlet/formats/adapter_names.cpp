#include "ringlet/formats/adapter_names.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <set>
#include <string_view>
#include <utility>

#include "ringlet/core/error.h"
#include "ringlet/formats/ldm/ldm_unet.h"
#include "ringlet/nn/text_model_level.h"

namespace ringlet::formats {
namespace {

constexpr const char* kPeft = "base_model.model.";

std::string full_name(const ModuleName& module) { return module.component + "." + module.path; }

std::string underscored(std::string path) {
  std::ranges::replace(path, '.', '_');
  return path;
}

/// diffusers' older spellings. Attention processors held the adapters, in text encoders under the
/// U-Net's names; a magnitude stands beside "to_out".
std::vector<std::string> older_spellings(const std::string& path) {
  static constexpr auto kProjections =
      std::to_array<std::pair<const char*, const char*>>({{"to_q", "to_q_lora"},
                                                          {"to_k", "to_k_lora"},
                                                          {"to_v", "to_v_lora"},
                                                          {"to_out.0", "to_out_lora"},
                                                          {"q_proj", "to_q_lora"},
                                                          {"k_proj", "to_k_lora"},
                                                          {"v_proj", "to_v_lora"},
                                                          {"out_proj", "to_out_lora"}});
  for (const auto& [projection, older] : kProjections) {
    if (!path.ends_with(std::string(".") + projection)) continue;
    const std::string attention = path.substr(0, path.size() - std::string_view(projection).size());
    std::vector<std::string> all = {attention + "processor." + older, attention + older};
    if (path.ends_with(".to_out.0")) all.push_back(attention + "to_out");
    return all;
  }
  return {};
}

/// What kohya puts before a path, the one to write first; nothing for other components. networks/
/// oft.py has a prefix of its own.
std::vector<std::string> kohya_prefixes(const std::string& component, bool xl) {
  if (component == "unet") return {"lora_unet_", "oft_unet_"};
  if (component == "text_encoder_2") return {"lora_te2_"};
  if (component != "text_encoder") return {};
  return xl ? std::vector<std::string>{"lora_te1_", "lora_te_"}
            : std::vector<std::string>{"lora_te_", "lora_te1_"};
}

/// What ComfyUI puts before the path of a text encoder's layer: its own name of the network, with
/// "text_encoders." or without. OpenCLIP's encoder of Stable Diffusion 2 is clip_h, the one of XL
/// clip_g.
std::vector<std::string> comfyui_prefixes(const std::string& component, bool xl) {
  std::vector<std::string> networks;
  if (component == "text_encoder") networks = {"clip_l"};
  if (component == "text_encoder" && !xl) networks.emplace_back("clip_h");
  if (component == "text_encoder_2") networks = {"clip_g"};
  std::vector<std::string> prefixes;
  for (const std::string& network : networks)
    for (const char* outer : {"text_encoders.", ""})
      for (const char* inner : {".transformer.", "."}) prefixes.push_back(outer + network + inner);
  return prefixes;
}

/// Whether the layers are those of a CLIP text encoder, so that "text_model." may be left out. In a
/// whole CLIP the names without it could be the vision model's.
bool is_text_encoder(const std::string& component, const nn::ModuleIndex& index) {
  constexpr std::string_view kVision = "vision_model.";
  if (component.starts_with("text_encoder")) return true;
  const auto vision = index.layers.lower_bound(std::string(kVision));
  return component == "model" &&
         (vision == index.layers.end() || !vision->first.starts_with(kVision));
}

/// Where a layer stands in the order in which diffusers (2022) and transformers define theirs.
std::vector<std::int64_t> walk_position(const std::string& path) {
  static constexpr auto kOrder = std::to_array<std::string_view>(
      {"down_blocks", "up_blocks", "mid_block", "attn1", "ff", "attn2", "to_q", "to_k", "to_v",
       "to_out", "k_proj", "v_proj", "q_proj", "out_proj"});
  std::vector<std::int64_t> position;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    const bool number = !part.empty() && part.size() < 10 &&
                        std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
    position.push_back(number ? std::stoll(part)
                              : std::ranges::find(kOrder, part) - kOrder.begin());
    begin = end + 1;
  }
  return position;
}

/// Whether the layer belongs to one of cloneofsimo_classes().
bool has_position(const std::string& component, const std::string& path) {
  const auto inside = [&](std::string_view part) { return path.find(part) != std::string::npos; };
  if (component == "unet")
    return inside(".attn1.") || inside(".attn2.") || path.ends_with(".ff.net.0.proj");
  return component == "text_encoder" && inside(".self_attn.");
}

/// Layers, and what else has a weight with one axis: norms.
std::vector<std::string> module_paths(const nn::ModuleIndex& index) {
  constexpr std::string_view kWeight = ".weight";
  std::set<std::string> paths;
  for (const auto& layer : index.layers) paths.insert(layer.first);
  for (const auto& [name, tensor] : index.tensors)
    if (name.ends_with(kWeight) && tensor.dim() == 1)
      paths.insert(name.substr(0, name.size() - kWeight.size()));
  return {paths.begin(), paths.end()};
}

std::string list(const std::vector<ModuleName>& modules) {
  std::string names;
  for (const ModuleName& module : modules)
    names += (names.empty() ? "\"" : " and \"") + full_name(module) + "\"";
  return names;
}

std::vector<ModuleName> of_component(const std::vector<ModuleName>& owners,
                                     const std::string& component) {
  std::vector<ModuleName> some;
  std::ranges::copy_if(owners, std::back_inserter(some),
                       [&](const ModuleName& owner) { return owner.component == component; });
  return some;
}

}  // namespace

const char* name_of(Naming naming) {
  switch (naming) {
    case Naming::peft:
      return "PEFT";
    case Naming::diffusers:
      return "diffusers";
    case Naming::kohya:
      return "kohya";
    case Naming::lycoris:
      return "LyCORIS";
    case Naming::comfyui:
      return "ComfyUI";
    case Naming::cloneofsimo:
      return "cloneofsimo";
  }
  return "";
}

std::vector<std::string> cloneofsimo_classes(const std::string& component) {
  // diffusers renamed CrossAttention to Attention; GEGLU is the first half of a feed-forward.
  if (component == "unet") return {"CrossAttention", "Attention", "GEGLU"};
  if (component == "text_encoder") return {"CLIPAttention"};
  return {};
}

ModuleNames::ModuleNames(const std::map<std::string, const nn::ModuleIndex*>& components) {
  const auto unet = components.find("unet");
  const bool xl =
      components.contains("text_encoder_2") ||
      (unet != components.end() && unet->second->layers.contains("add_embedding.linear_1"));
  for (const auto& [component, index] : components) {
    add_component(component, *index, xl);
    add_positions(component, *index);
  }
}

void ModuleNames::add_component(const std::string& component, const nn::ModuleIndex& index,
                                bool xl) {
  const std::vector<std::string> paths = module_paths(index);
  const auto ldm_names =
      component == "unet" ? ldm_module_names(index, paths) : std::map<std::string, std::string>();
  const bool text = is_text_encoder(component, index);
  for (const std::string& path : paths) {
    const ModuleName module{component, path};
    const auto ldm = ldm_names.find(path);
    const std::string ldm_path = ldm == ldm_names.end() ? "" : ldm->second;
    std::set<std::string> spellings = {path};
    if (text)
      spellings.insert({nn::with_text_model_level(path), nn::without_text_model_level(path)});
    for (const std::string& spelling : spellings) add_spelling(module, spelling, xl);
    if (!ldm_path.empty()) add_ldm_spelling(module, ldm_path);
    add_written(module, ldm_path, xl);
  }
}

void ModuleNames::add_spelling(const ModuleName& module, const std::string& path, bool xl) {
  const std::string flat = underscored(path);
  add(full_, full_name({module.component, path}), module);
  add(bare_, path, module);
  for (const std::string& older : older_spellings(path)) {
    add(full_, full_name({module.component, older}), module);
    add(bare_, older, module);
  }
  add(bare_, kPeft + path, module);
  add(bare_, "lycoris_" + flat, module);
  for (const std::string& prefix : kohya_prefixes(module.component, xl))
    add(full_, prefix + flat, module);
  for (const std::string& prefix : comfyui_prefixes(module.component, xl))
    add(full_, prefix + path, module);
}

void ModuleNames::add_ldm_spelling(const ModuleName& module, const std::string& ldm) {
  for (const std::string& prefix : kohya_prefixes(module.component, /*xl=*/false))
    add(full_, prefix + underscored(ldm), module);
  add(full_, "diffusion_model." + ldm, module);
  add(bare_, ldm, module);
}

void ModuleNames::add_written(const ModuleName& module, const std::string& ldm, bool xl) {
  const std::vector<std::string> kohya = kohya_prefixes(module.component, xl);
  // Every reader of diffusers' and kohya's names knows those with "text_model.".
  const bool text_encoder = module.component.starts_with("text_encoder");
  const std::string path = text_encoder ? nn::with_text_model_level(module.path) : module.path;
  auto& names = written_[module];
  names[Naming::peft] = kPeft + module.path;
  names[Naming::diffusers] = full_name({module.component, path});
  if (!kohya.empty())
    names[Naming::kohya] = kohya.front() + underscored(xl && !ldm.empty() ? ldm : path);
  // Readers know "lycoris_" in the U-Net only.
  const bool has_prefix = module.component != "unet" && !kohya.empty();
  names[Naming::lycoris] = (has_prefix ? kohya.front() : "lycoris_") + underscored(path);
}

void ModuleNames::add(Owners& owners, const std::string& spelling, const ModuleName& module) {
  std::vector<ModuleName>& known = owners[spelling];
  if (std::ranges::find(known, module) == known.end()) known.push_back(module);
}

void ModuleNames::add_positions(const std::string& component, const nn::ModuleIndex& index) {
  std::vector<std::pair<std::vector<std::int64_t>, std::string>> walk;
  for (const auto& layer : index.layers)
    if (has_position(component, layer.first))
      walk.emplace_back(walk_position(layer.first), layer.first);
  std::ranges::sort(walk);
  for (std::size_t i = 0; i < walk.size(); ++i) {
    const ModuleName module{component, walk[i].second};
    const std::string name = component + ":" + std::to_string(i);
    full_[name].push_back(module);
    written_[module][Naming::cloneofsimo] = name;
  }
}

std::optional<ModuleName> ModuleNames::find(const std::string& prefix,
                                            const std::string& component) const {
  std::vector<ModuleName> owners;
  if (const auto named = full_.find(prefix); named != full_.end()) {
    owners = named->second;
  } else if (const auto bare = bare_.find(prefix); bare != bare_.end()) {
    owners = of_component(bare->second, component.empty() ? "unet" : component);
    if (owners.empty() && component.empty()) owners = bare->second;
  }
  if (owners.empty()) return std::nullopt;
  if (owners.size() > 1)
    throw Error(ErrorCode::mismatch, prefix,
                "the name fits several layers of the model: " + list(owners));
  return owners.front();
}

std::string ModuleNames::prefix(Naming naming, const ModuleName& module) const {
  const auto names = written_.find(module);
  if (names == written_.end())
    throw Error(ErrorCode::not_found, full_name(module), "the model has no such layer");
  const auto name = names->second.find(naming);
  if (name == names->second.end())
    throw Error(ErrorCode::unsupported, full_name(module),
                std::string(name_of(naming)) + " adapter files have no name for this layer",
                "choose another format, or leave the layer out");
  const auto named = full_.find(name->second);
  const auto owners =
      of_component(named == full_.end() ? bare_.at(name->second) : named->second, module.component);
  if (owners.size() > 1)
    throw Error(ErrorCode::unsupported, full_name(module),
                std::string(name_of(naming)) + " adapter files have one name for " + list(owners),
                "choose a format that keeps the dots, such as PEFT's");
  return name->second;
}

}  // namespace ringlet::formats
