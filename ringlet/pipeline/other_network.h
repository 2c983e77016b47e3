// Networks that are no Stable Diffusion, known by the names of their tensors alone: enough to
// merge, convert, extract and inspect adapters, without knowing how they compute.
#pragma once

#include <filesystem>
#include <string>

#include "ringlet/nn/weight_source.h"

namespace ringlet::pipeline {

/// What adapters call such a network: "model.LAYER".
inline constexpr const char* kOtherComponent = "model";

/// The weights of such a network: the path itself where it is a .safetensors file that is no single
/// file of Stable Diffusion, or model.safetensors in a folder with config.json; empty for anything
/// else.
std::filesystem::path other_network_file(const std::filesystem::path& path);

/// The tensors of a file; those that may be the weight of a linear layer, a convolution or a table
/// are its layers (nn::layer_of_tensor). Throws as FileStore::open.
nn::ModuleIndex layers_of_file(const std::filesystem::path& file);

}  // namespace ringlet::pipeline
