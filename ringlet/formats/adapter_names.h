// How the dialects of adapter files name the layers of a model.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "ringlet/formats/original_layout.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::formats {

/// Who names the layers.
///   peft         base_model.model.<path>, one file per component
///   diffusers    unet.<path>, text_encoder.<path>, text_encoder_2.<path>
///   kohya        lora_unet_<path with _>, lora_te_…; for Stable Diffusion XL and transformers
///                lora_te1_…, lora_te2_…, T5's lora_te3_…, and the original names (LDM's) in the
///                denoiser
///   lycoris      lycoris_<path with _>; text encoders as kohya names them
///   comfyui      diffusion_model.<original path>, text_encoders.clip_l.transformer.<path>; of
///                U-Nets the original is LDM's
///   original     the original path alone, as Black Forest Labs write; read only
///   xlabs        double_blocks.0.processor.qkv_lora1; read only
///   cloneofsimo  unet:0, text_encoder:3: the layer's place among those that it adapts; read only
enum class Naming { peft, diffusers, kohya, lycoris, comfyui, original, xlabs, cloneofsimo };

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

/// A layer of the original layout that is several of the model's, or has its rows in another order.
struct FusedLayer {
  struct Piece {
    ModuleName module;
    std::vector<RowRange> rows;  ///< of the fused layer, in the module's order
  };
  std::string name;  ///< "double_blocks.0.img_attn.qkv"
  std::vector<Piece> pieces;
  std::int64_t rows = 0;
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
  /// say the component it is `component` (a PEFT file's folder tells it); without that the
  /// denoiser, else the only one that fits. Throws Error(mismatch) when several layers fit equally
  /// well.
  std::optional<ModuleName> find(const std::string& prefix,
                                 const std::string& component = {}) const;

  /// The fused layer that a tensor name means, or null.
  const FusedLayer* find_fused(const std::string& prefix) const;

  /// The fused layer that a dialect writes a layer as a piece of, or null.
  const FusedLayer* fused_with(Naming naming, const ModuleName& module) const;

  /// How a dialect that has fused layers writes one.
  static std::string prefix(Naming naming, const FusedLayer& fused);

  /// The family of the model's transformer, if it has one.
  TransformerFamily family() const { return family_; }

  /// How a dialect writes a layer; PEFT's names are those of the index, kohya's and diffusers' have
  /// the level "text_model." whatever the index has. Throws Error(not_found) for a layer the model
  /// does not have and Error(unsupported) when the dialect has no name for it or the same one for
  /// two layers.
  std::string prefix(Naming naming, const ModuleName& module) const;

 private:
  using Owners = std::map<std::string, std::vector<ModuleName>>;

  void add_component(const std::string& component, const nn::ModuleIndex& index, bool xl);
  void add_original(const std::string& component, const nn::ModuleIndex& index);
  void add_spelling(const ModuleName& module, const std::string& path, bool xl);
  void add_ldm_spelling(const ModuleName& module, const std::string& ldm);
  void add_written(const ModuleName& module, const std::string& ldm, bool xl);
  static void add(Owners& owners, const std::string& spelling, const ModuleName& module);
  void add_positions(const std::string& component, const nn::ModuleIndex& index);

  Owners full_;  ///< spellings that say the component
  Owners bare_;  ///< spellings that leave it open
  std::vector<FusedLayer> fused_;
  std::map<std::string, std::size_t> fused_by_name_;
  std::map<ModuleName, std::size_t> fused_by_piece_;  ///< the one that is written
  TransformerFamily family_ = TransformerFamily::none;
  std::string transformer_;   ///< its component
  std::set<std::string> t5_;  ///< components that are T5's encoders
  std::map<ModuleName, std::map<Naming, std::string>> written_;
};

/// The classes whose linear layers cloneofsimo's default numbering counts: a file states them as a
/// JSON list in its metadata under the component's name, in any order. Others number differently.
/// Empty for components other than "unet" and "text_encoder".
std::vector<std::string> cloneofsimo_classes(const std::string& component);

}  // namespace ringlet::formats
