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

/// What a model's names depend on beside the layer's own path.
struct NetworkKind {
  bool several_encoders = false;  ///< kohya then numbers them
  bool t5 = false;
  bool transformer = false;  ///< of diffusers, whatever its component is called
};

/// What kohya puts before a path, the one to write first; nothing for other components. networks/
/// oft.py has a prefix of its own, and so have OneTrainer's transformers. FLUX's T5 is the second
/// encoder here and the third in kohya's names.
std::vector<std::string> kohya_prefixes(const std::string& component, const NetworkKind& kind) {
  if (kind.transformer) return {"lora_unet_", "lora_transformer_", "oft_unet_"};
  if (component == "unet") return {"lora_unet_", "oft_unet_"};
  if (component == "text_encoder_3") return {"lora_te3_"};
  if (component == "text_encoder_2")
    return kind.t5 ? std::vector<std::string>{"lora_te3_", "lora_te2_"}
                   : std::vector<std::string>{"lora_te2_"};
  if (component != "text_encoder") return {};
  return kind.several_encoders ? std::vector<std::string>{"lora_te1_", "lora_te_"}
                               : std::vector<std::string>{"lora_te_", "lora_te1_"};
}

/// What ComfyUI puts before the path of a text encoder's layer, the one to write first: its own
/// name of the network, with "text_encoders." or without. OpenCLIP's encoder of Stable Diffusion 2
/// is clip_h, the one of XL and of Stable Diffusion 3 clip_g.
std::vector<std::string> comfyui_prefixes(const std::string& component, const NetworkKind& kind) {
  std::vector<std::string> networks;
  if (component == "text_encoder") networks = {"clip_l"};
  if (component == "text_encoder" && !kind.several_encoders) networks.emplace_back("clip_h");
  if (component == "text_encoder_2") networks = {"clip_g"};
  if (kind.t5) networks = {"t5xxl"};
  std::vector<std::string> prefixes;
  for (const std::string& network : networks)
    for (const char* outer : {"text_encoders.", ""})
      for (const char* inner : {".transformer.", "."}) prefixes.push_back(outer + network + inner);
  return prefixes;
}

/// What stands before a path of the original layout that keeps its dots.
constexpr std::array kOriginalPrefixes = {"", "diffusion_model.", "model.diffusion_model.",
                                          "transformer.", "base_model.model."};

/// What stands before one whose dots are underscores.
constexpr std::array kFlatPrefixes = {"lora_unet_", "lora_transformer_", "oft_unet_", "lycoris_"};

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
    case Naming::original:
      return "the original layout";
    case Naming::xlabs:
      return "XLabs";
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
  for (const auto& [component, index] : components) {
    if (index->layers.contains("encoder.block.0.layer.0.SelfAttention.q")) t5_.insert(component);
    const TransformerFamily family = transformer_family(*index);
    if (family == TransformerFamily::none) continue;
    family_ = family;
    transformer_ = component;
  }
  const bool xl =
      components.contains("text_encoder_2") || family_ != TransformerFamily::none ||
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
  const bool text = is_text_encoder(component, index) && !t5_.contains(component);
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
  if (component == transformer_) add_original(component, index);
}

void ModuleNames::add_original(const std::string& component, const nn::ModuleIndex& index) {
  for (const OriginalLayer& layer : original_layers(index)) {
    std::vector<std::string> spellings;
    for (const char* prefix : kOriginalPrefixes) spellings.push_back(prefix + layer.name);
    for (const char* prefix : kFlatPrefixes) spellings.push_back(prefix + underscored(layer.name));
    if (layer.is_plain()) {
      const ModuleName module{component, layer.pieces.front().path};
      for (const std::string& spelling : spellings) add(full_, spelling, module);
      if (layer.of_xlabs) continue;
      written_[module][Naming::kohya] = "lora_unet_" + underscored(layer.name);
      written_[module][Naming::comfyui] = "diffusion_model." + layer.name;
      continue;
    }
    const std::size_t place = fused_.size();
    FusedLayer& fused = fused_.emplace_back(FusedLayer{layer.name, {}, layer.rows});
    for (const LayoutPiece& piece : layer.pieces) {
      fused.pieces.push_back({{component, piece.path}, piece.rows});
      if (!layer.of_xlabs) fused_by_piece_[{component, piece.path}] = place;
    }
    for (const std::string& spelling : spellings) fused_by_name_.emplace(spelling, place);
  }
}

void ModuleNames::add_spelling(const ModuleName& module, const std::string& path, bool xl) {
  const std::string flat = underscored(path);
  const NetworkKind kind{xl, t5_.contains(module.component), module.component == transformer_};
  add(full_, full_name({module.component, path}), module);
  add(bare_, path, module);
  for (const std::string& older : older_spellings(path)) {
    add(full_, full_name({module.component, older}), module);
    add(bare_, older, module);
  }
  add(bare_, kPeft + path, module);
  add(bare_, "lycoris_" + flat, module);
  for (const std::string& prefix : kohya_prefixes(module.component, kind))
    add(full_, prefix + flat, module);
  for (const std::string& prefix : comfyui_prefixes(module.component, kind))
    add(full_, prefix + path, module);
  if (kind.transformer)
    for (const char* prefix : {"transformer.", "diffusion_model."})
      add(full_, prefix + path, module);
}

void ModuleNames::add_ldm_spelling(const ModuleName& module, const std::string& ldm) {
  for (const std::string& prefix : kohya_prefixes(module.component, {}))
    add(full_, prefix + underscored(ldm), module);
  add(full_, "diffusion_model." + ldm, module);
  add(bare_, ldm, module);
}

void ModuleNames::add_written(const ModuleName& module, const std::string& ldm, bool xl) {
  const bool t5 = t5_.contains(module.component);
  const NetworkKind kind{xl, t5, module.component == transformer_};
  const std::vector<std::string> kohya = kohya_prefixes(module.component, kind);
  const std::vector<std::string> comfyui = comfyui_prefixes(module.component, kind);
  // Every reader of diffusers' and kohya's names knows those with "text_model.".
  const bool clip = module.component.starts_with("text_encoder") && !t5;
  const std::string path = clip ? nn::with_text_model_level(module.path) : module.path;
  auto& names = written_[module];
  names[Naming::peft] = kPeft + module.path;
  names[Naming::diffusers] = full_name({module.component, path});
  if (!kohya.empty())
    names[Naming::kohya] = kohya.front() + underscored(xl && !ldm.empty() ? ldm : path);
  if (!comfyui.empty())
    names[Naming::comfyui] = comfyui.front() + path;
  else if (!ldm.empty())
    names[Naming::comfyui] = "diffusion_model." + ldm;
  // Readers know "lycoris_" in the denoiser only.
  const bool denoiser = module.component == "unet" || kind.transformer;
  const bool has_prefix = !denoiser && !kohya.empty();
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

const FusedLayer* ModuleNames::find_fused(const std::string& prefix) const {
  const auto found = fused_by_name_.find(prefix);
  return found == fused_by_name_.end() ? nullptr : &fused_[found->second];
}

const FusedLayer* ModuleNames::fused_with(Naming naming, const ModuleName& module) const {
  if (naming != Naming::kohya && naming != Naming::comfyui) return nullptr;
  const auto found = fused_by_piece_.find(module);
  return found == fused_by_piece_.end() ? nullptr : &fused_[found->second];
}

std::string ModuleNames::prefix(Naming naming, const FusedLayer& fused) {
  return naming == Naming::comfyui ? "diffusion_model." + fused.name
                                   : "lora_unet_" + underscored(fused.name);
}

std::optional<ModuleName> ModuleNames::find(const std::string& prefix,
                                            const std::string& component) const {
  std::vector<ModuleName> owners;
  if (const auto named = full_.find(prefix); named != full_.end()) {
    owners = named->second;
  } else if (const auto bare = bare_.find(prefix); bare != bare_.end()) {
    const std::string denoiser = transformer_.empty() ? "unet" : transformer_;
    owners = of_component(bare->second, component.empty() ? denoiser : component);
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
