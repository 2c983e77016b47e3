// Which layers an adapter changes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::adapt {

/// The networks that can be adapted by name: "unet", "text_encoder", "text_encoder_2", … The names
/// have no dots, since a layer's full name is "component.dotted.path". No pointer is null.
using Components = std::map<std::string, const nn::ModuleIndex*>;

/// One layer that gets an adapter.
struct Target {
  std::string component;
  std::string name;  ///< dotted path inside the component
  std::shared_ptr<nn::Layer> layer;

  std::string full_name() const { return component + "." + name; }
};

/// A small tensor of a network, such as a norm's scale, that an adapter adds to.
struct TensorTarget {
  std::string component;
  std::string name;  ///< "mid_block.resnets.0.norm1.weight"
  at::Tensor tensor;
  std::shared_ptr<nn::TensorSlots> slots;

  std::string full_name() const { return component + "." + name; }
};

/// What to select: the union of presets and include patterns, without what exclude patterns match.
/// A pattern is a glob over the full name (`*` any characters, dots included, `?` one), or after
/// "re:" a regular expression (ECMAScript) that may match anywhere in it. A glob may leave out the
/// level "text_model." of text encoders; the full name has it.
struct TargetOptions {
  std::vector<std::string> presets = {};  ///< names of target_presets()
  std::vector<std::string> include = {};
  std::vector<std::string> exclude = {};
};

/// The names of the presets:
///   attention     query, key, value and output projections of the U-Net's attentions, or of those
///                 of another network (component "model")
///   attention+ff  and both layers of its transformers' feed-forwards
///   all-linear    every linear layer of it
///   all           every linear layer and convolution of it
///   embedding     its tables of embeddings
///   text-encoder  attention projections and feed-forwards of all text encoders
///   double-blocks every linear layer of a transformer's blocks that keep text and picture apart
///                 (Stable Diffusion 3's, and FLUX's first)
///   single-blocks every linear layer of its blocks that have both as one sequence (FLUX's last)
std::vector<std::string> target_presets();

/// What a layer is of, for people who read which layers were chosen: "transformer, double blocks,
/// attention", "unet, feed-forward", "text_encoder, other layers".
std::string layer_group(const Target& target);

/// Whether a pattern matches a full name, of a layer or a parameter. Throws Error(invalid_argument)
/// for an invalid regular expression; `option` names the pattern's place.
bool pattern_matches(const std::string& pattern, const std::string& name, const Field& option);

/// The selected layers, by component, then name; "attention" when neither a preset nor an include
/// pattern is given. Throws Error(invalid_argument) for an unknown preset, an invalid regular
/// expression, a preset or pattern that matches no layer, and when nothing is left.
std::vector<Target> select_targets(const Components& components, const TargetOptions& options);

}  // namespace ringlet::adapt
