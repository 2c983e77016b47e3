// What to say of an adapter file that cannot be read for a model.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/io/safetensors.h"

namespace ringlet::formats {

/// The tensors of a file that were not understood.
struct UnreadTensors {
  std::vector<std::string> endings;  ///< names that end in nothing known
  std::vector<std::string> layers;   ///< one tensor of each layer that the model lacks
  std::size_t fitting = 0;           ///< layers that it has

  bool any() const { return !endings.empty() || !layers.empty(); }
};

/// An error that names tensors. It says that the file is for another model only where no layer
/// fits.
Error not_understood(const std::filesystem::path& path, const UnreadTensors& unread);

/// Refuses an adapter of a diffusion transformer (FLUX, Stable Diffusion 3, …) for a model with a
/// U-Net: the names of its blocks tell. Throws Error(mismatch) with the family and a tensor.
void refuse_transformers(const io::SafetensorsFile& file);

}  // namespace ringlet::formats
