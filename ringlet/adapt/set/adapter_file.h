// ringlet's own adapter files: one safetensors file that says all that is needed to build the
// adapters again.
//
// Tensors are named "component.dotted.path.part". Metadata:
//   ringlet.format       "1"
//   ringlet.method       method text
//   ringlet.layer_methods  {"unet.….to_q": method text, …} of layers with another one, or missing
//   ringlet.modes        factors per dimension
//   ringlet.factors      {"320": "4x8x10", …}
//   ringlet.base_hash    what the caller knows the base model by, or empty
//   ringlet.base_kind    the kind of base model, such as "FLUX.1 dev", or missing
//   ringlet.base_shapes  {"unet.….to_q": [320, 320], …}: the adapted layers' weights
//   ringlet.training     JSON of the training run, or empty
//   ringlet.new_layers   {"model.classifier": "classifier", …}: layers that the base lacks, and
//                        what their starts follow from (nn::made_linear_layer), or missing
//   ringlet.config       config.json of the network with the adapter, or missing
//   ringlet.control      JSON about a control encoder, whose tensors are "control.…", or missing
// and the caller's own keys (modelspec.*, ss_*).
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/adapt/set/targets.h"
#include "ringlet/io/safetensors.h"

namespace ringlet::adapt {

/// What a file says beside the adapters themselves.
struct AdapterFileInfo {
  std::string base_hash = {};
  std::string base_kind = {};           ///< for people: "FLUX.1 dev"
  std::string training = {};            ///< JSON text, kept as it is
  io::Metadata extra = {};              ///< more metadata; keys may not start with "ringlet."
  at::ScalarType storage = at::kFloat;  ///< fp32, fp16 or bf16
  /// Layers that the base network lacks, such as a head for other classes: full names, and the
  /// names that their starts follow from (nn::made_linear_layer).
  std::map<std::string, std::string> new_layers = {};
  std::string network_config = {};  ///< config.json of the network with the adapter, as JSON text
  /// A network that was trained with the adapters and works with them: what is known of it, as JSON
  /// text (empty = there is none), and its tensors by their own names.
  std::string control = {};
  std::map<std::string, at::Tensor> control_tensors = {};
};

/// Writes the set atomically; equal content gives equal bytes. Only finite numbers are written:
/// Error(non_finite) names the first tensor with others (also those too large for `storage`), and
/// nothing is written. Throws Error(invalid_argument | io | no_space) as well.
void save_adapter(const std::filesystem::path& path, const AdapterSet& set,
                  const AdapterFileInfo& info = {});

/// Full names of the base's layers that a file adapts. Throws as load_adapter.
std::vector<std::string> adapted_layers(const std::filesystem::path& path);

struct LoadedAdapter {
  AdapterSet set;  ///< fp32, not attached, not trainable
  AdapterFileInfo info;
};

/// Reads an adapter for these networks; saving it again gives the same bytes. Layers of text
/// encoders are found with the level "text_model." and without it, whichever the file has. Nothing
/// of a file is trusted: what is built is never larger than the file's own tensors. Throws
/// Error(unsupported) for a file without ringlet's metadata, of a newer format or method;
/// Error(mismatch) that names the first layer, by name, that the networks lack or have in another
/// shape; Error(bad_format | non_finite) for a file that contradicts itself; and as
/// SafetensorsFile::open. A base hash other than the expected one (both known) is only a warning.
LoadedAdapter load_adapter(const std::filesystem::path& path, const Components& components,
                           const std::string& expected_base_hash = {});

/// Refuses numbers of transforms from which no weight follows: reflections along zero, rotations
/// whose matrix has no inverse. Throws Error(non_finite) that names `where` and the layer.
void check_transforms(const AdapterSet& set, const std::string& where);

}  // namespace ringlet::adapt
