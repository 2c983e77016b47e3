// Adapters written into a model's weights.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::pipeline {

using AdapterSets = std::span<const adapt::AdapterSet* const>;

/// Writes the model with the adapters merged in as a diffusers folder; other weights stay as they
/// are, byte for byte, and the types too. Load the model with LoadOptions::low_memory, so that
/// weights are merged from their stored type. Throws as
/// TextToImageModel::save.
void merge_into_folder(const TextToImageModel& model, AdapterSets sets,
                       const std::filesystem::path& folder);

/// The same for a model from a single file, in the same layout. Throws Error(unsupported) for a
/// model from a folder.
void merge_into_file(const TextToImageModel& model, AdapterSets sets,
                     const std::filesystem::path& file);

/// An adapter file and how strongly it counts.
struct AdapterChoice {
  std::filesystem::path file;
  double strength = 1.0;
  std::vector<std::pair<std::string, double>> blocks = {};  ///< AdapterSet::set_block_strengths
};

/// Merges into any safetensors file by tensor name, with adapters for networks_of(base): layer
/// "component.path" changes the tensor "component.path.weight", or "path.weight" where the file has
/// no component names, in any layout of its network. Layers that the base lacks are added.
void merge_tensor_file(const nn::FileStore& base, AdapterSets sets,
                       const std::filesystem::path& out);

}  // namespace ringlet::pipeline
