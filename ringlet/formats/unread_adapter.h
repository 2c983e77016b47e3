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

/// What a model's denoiser is called in messages.
inline constexpr const char* kUNet = "a U-Net";

/// Refuses an adapter of another family of denoisers (U-Net, FLUX, Stable Diffusion 3, …) than the
/// model's, `denoiser`: kUNet or name_of(TransformerFamily). The names of its blocks tell. Throws
/// Error(mismatch) with both families and a tensor.
void refuse_other_family(const io::SafetensorsFile& file, const std::string& denoiser);

/// Whether a tensor of an adapter file is one of a diffusion transformer, by its block's name.
bool names_transformer(const std::string& tensor);

}  // namespace ringlet::formats
