// How the dialects of adapter files name the layers of a model.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ringlet/nn/weight_source.h"

namespace ringlet::formats {

/// Who names the layers.
///   peft         base_model.model.<path>, one file per component
///   diffusers    unet.<path>, text_encoder.<path>, text_encoder_2.<path>
///   kohya        lora_unet_<path with _>, lora_te_…; for Stable Diffusion XL lora_te1_…,
///                lora_te2_… and LDM's names in the U-Net
///   lycoris      lycoris_<path with _>; text encoders as kohya names them
///   comfyui      diffusion_model.<LDM's path>, text_encoders.clip_l.transformer.<path>; read only
///   cloneofsimo  unet:0, text_encoder:3: the layer's place among those that it adapts
enum class Naming { peft, diffusers, kohya, lycoris, comfyui, cloneofsimo };

/// What the program is called where people read it: "PEFT", "LyCORIS".
const char* name_of(Naming naming);

/// A layer of a model.
struct ModuleName {
  std::string component;  ///< "unet"
  std::string path;       ///< "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"

  bool operator==(const ModuleName& other) const = default;
  bool operator<(const ModuleName& other) const {
    return std::tie(component, path) < std::tie(other.component, other.path);
  }
};

/// The tables of all dialects for one model, in both directions. They hold every spelling of every
/// layer of the model, so nothing is guessed about which underscore was a dot.
class ModuleNames {
 public:
  /// The networks of the model by component (adapt::Components); read here only.
  explicit ModuleNames(const std::map<std::string, const nn::ModuleIndex*>& components);

  /// The layer that a tensor name means, or nothing; `prefix` is the name without the tensor's own
  /// ending (".lora_down.weight", ":up", ".alpha"). Beside what prefix() writes, these are known:
  /// kohya's and LDM's names for every model, `lora_te1_` for the only text encoder, `oft_unet_`,
  /// ComfyUI's, diffusers' older ones (`….attn1.processor.to_q_lora`, also without "unet."), and
  /// every name of a text encoder's layer without the level "text_model.". Where the name does not
  /// say the component it is `component` (a PEFT file's folder tells it); without that the U-Net,
  /// else the only one that fits. Throws Error(mismatch) when several layers fit equally well.
  std::optional<ModuleName> find(const std::string& prefix,
                                 const std::string& component = {}) const;

  /// How a dialect writes a layer; PEFT's names are those of the index, kohya's and diffusers' have
  /// the level "text_model." whatever the index has. Throws Error(not_found) for a layer the model
  /// does not have and Error(unsupported) when the dialect has no name for it or the same one for
  /// two layers.
  std::string prefix(Naming naming, const ModuleName& module) const;

 private:
  using Owners = std::map<std::string, std::vector<ModuleName>>;

  void add_component(const std::string& component, const nn::ModuleIndex& index, bool xl);
  void add_spelling(const ModuleName& module, const std::string& path, bool xl);
  void add_ldm_spelling(const ModuleName& module, const std::string& ldm);
  void add_written(const ModuleName& module, const std::string& ldm, bool xl);
  static void add(Owners& owners, const std::string& spelling, const ModuleName& module);
  void add_positions(const std::string& component, const nn::ModuleIndex& index);

  Owners full_;  ///< spellings that say the component
  Owners bare_;  ///< spellings that leave it open
  std::map<ModuleName, std::map<Naming, std::string>> written_;
};

/// The classes whose linear layers cloneofsimo's default numbering counts: a file states them as a
/// JSON list in its metadata under the component's name, in any order. Others number differently.
/// Empty for components other than "unet" and "text_encoder".
std::vector<std::string> cloneofsimo_classes(const std::string& component);

}  // namespace ringlet::formats
