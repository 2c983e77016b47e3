// Networks other than text-to-image models, known by the names of their tensors alone: enough to
// merge, convert, extract and inspect adapters, without knowing how they compute.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "ringlet/nn/weight_source.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::pipeline {

/// What adapters call such a network: "model.LAYER".
inline constexpr const char* kOtherComponent = "model";

/// The one file of weights that a path means, opened: the path itself where it is a .safetensors
/// file, or model.safetensors or diffusion_pytorch_model.safetensors in a folder with config.json;
/// null for anything else. It is such a network unless find_family knows it. Throws as
/// FileStore::open.
std::shared_ptr<const nn::FileStore> open_network_file(const std::filesystem::path& path);

/// Whether a file is a transformer of Stable Diffusion 3 or FLUX in its original layout without an
/// autoencoder, and none is given: it makes no pictures, but adapters fit it.
bool is_transformer_alone(const std::shared_ptr<const nn::FileStore>& file,
                          const ModelFileOptions& options);

/// A file's tensors under the names that adapters know: those of such a transformer are diffusers',
/// those of a CLIP text encoder have the level "text_model.". Throws as
/// formats::readable_weights and open_original_transformer.
std::shared_ptr<const nn::TensorStore> network_of(const std::shared_ptr<const nn::FileStore>& file);

/// The tensors of network_of; those that may be the weight of a linear layer, a convolution or a
/// table are its layers (nn::layer_of_tensor; tables, and the matrices that GPT-2 stores as [in,
/// out], are known by the names that transformers gives them).
nn::ModuleIndex layers_of(const std::shared_ptr<const nn::FileStore>& file);

/// The networks of a file by what these adapters call them, over layers_of. ringlet's own
/// adapters name their components: "unet.a" is the tensor "unet.a.weight", or "a.weight" where the
/// file has no such name. For those of other programs the names "unet.…", "text_encoder.…" and
/// "text_encoder_2.…" are networks of their own; else the whole file is one: "unet", "text_encoder"
/// or "text_encoder_2" where its tensors are diffusers' U-Net or a CLIP text encoder, and
/// kOtherComponent for anything else, which has its layers under all their names. Throws as
/// adapt::adapted_layers.
std::map<std::string, nn::ModuleIndex> networks_of(const std::shared_ptr<const nn::FileStore>& file,
                                                   std::span<const std::filesystem::path> adapters);

/// What the class of transformers that a folder's config.json names calls the layers of its `file`,
/// by "component.layer", where it is another name: "transformer.h.0.attn.c_attn" for
/// "h.0.attn.c_attn" of GPT-2 as it is published, whose class is GPT2LMHeadModel. Empty for bare
/// files and for anything that is not known. Throws as read_json_file.
std::map<std::string, std::string> class_names(
    const std::filesystem::path& path, const nn::FileStore& file,
    const std::map<std::string, nn::ModuleIndex>& networks);

/// The same tensors and layers under all names that adapters may have for them: with and without
/// the level that a class with a head puts before them, and as other files of their network name
/// them (models::other_names). For reading adapters, not for choosing layers.
nn::ModuleIndex with_other_names(nn::ModuleIndex index);

/// Two files of one network may be of different classes, such as a base and what was fine-tuned
/// from it: brings the second to the names of the first, and leaves tensors of published heads out
/// that only one has. Files with equal names stay as they are.
void match_names(nn::ModuleIndex& base, nn::ModuleIndex& tuned);

}  // namespace ringlet::pipeline
