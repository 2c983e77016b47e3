// Writes a model as a diffusers folder.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include <ATen/core/Tensor.h>

#include "ringlet/pipeline/stable_diffusion.h"

namespace ringlet::pipeline {

/// Tensors that take the place of a model's own, by component and dotted name.
using Replacements = std::map<std::string, std::map<std::string, at::Tensor>>;

struct SaveModelOptions {
  at::ScalarType dtype = at::kFloat;  ///< of the weights in the files
  Replacements replacements;
};

/// Writes configurations, tokenizers, scheduler and weights; model_index.json comes last, so that a
/// folder without it is incomplete. Works for models from single files, too. Throws
/// Error(non_finite) that names the tensor, and Error(io | no_space).
void save_model(const StableDiffusion& model, const std::filesystem::path& folder,
                const SaveModelOptions& options = {});

}  // namespace ringlet::pipeline
