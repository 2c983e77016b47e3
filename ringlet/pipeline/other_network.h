// Networks that are no Stable Diffusion, known by the names of their tensors alone: enough to
// merge, convert, extract and inspect adapters, without knowing how they compute.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "ringlet/nn/weight_source.h"

namespace ringlet::pipeline {

/// What adapters call such a network: "model.LAYER".
inline constexpr const char* kOtherComponent = "model";

/// The weights of such a network: the path itself where it is a .safetensors file that is no single
/// file of Stable Diffusion, or model.safetensors or diffusion_pytorch_model.safetensors in a
/// folder with config.json; empty for anything else.
std::filesystem::path other_network_file(const std::filesystem::path& path);

/// The tensors of a file; those that may be the weight of a linear layer, a convolution or a table
/// are its layers (nn::layer_of_tensor; tables are known by the names that transformers gives
/// them). The names of a CLIP text encoder have the level "text_model.", whether the file's do or
/// not. Throws as FileStore::open.
nn::ModuleIndex layers_of_file(const std::filesystem::path& file);

/// The networks of a file by what these adapters call them, over layers_of_file. ringlet's own
/// adapters name their components: "unet.a" is the tensor "unet.a.weight", or "a.weight" where the
/// file has no such name. For those of other programs the names "unet.…", "text_encoder.…" and
/// "text_encoder_2.…" are networks of their own; else the whole file is one: "unet", "text_encoder"
/// or "text_encoder_2" where its tensors are diffusers' U-Net or a CLIP text encoder, and
/// kOtherComponent for anything else. Throws as FileStore::open and adapt::adapted_layers.
std::map<std::string, nn::ModuleIndex> networks_of_file(
    const std::filesystem::path& file, std::span<const std::filesystem::path> adapters);

/// The level that transformers puts before the names of the network in this folder, and its file
/// does not: "transformer." for GPT-2 as it is published, whose config.json names GPT2LMHeadModel.
/// "" for bare files and for anything that is not known. Throws as read_json_file.
std::string missing_level(const std::filesystem::path& path,
                          const std::map<std::string, nn::ModuleIndex>& networks);

}  // namespace ringlet::pipeline
