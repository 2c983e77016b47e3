// Writes a model as a diffusers folder.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include <ATen/core/Tensor.h>

#include "ringlet/pipeline/stable_diffusion.h"

namespace ringlet::pipeline {

/// Tensors that take the place of a model's own, by component and dotted name.
using Replacements = std::map<std::string, std::map<std::string, at::Tensor>>;

/// The tensors of the networks as they are in memory, for models whose weights have been trained.
Replacements trained_tensors(const StableDiffusion& model);

struct SaveModelOptions {
  Replacements replacements;
  std::optional<at::ScalarType> dtype;  ///< of the weights in the files; none = as they are stored
};

/// Writes configurations, tokenizers, scheduler and weights; model_index.json comes last, so that a
/// folder without it is incomplete. What is not replaced comes from the model's files, unchanged.
/// Works for models from single files, too. Throws Error(non_finite) that names the tensor,
/// Error(invalid_argument) when the folder is the model's own, and Error(io | no_space).
void save_model(const StableDiffusion& model, const std::filesystem::path& folder,
                const SaveModelOptions& options);

}  // namespace ringlet::pipeline
