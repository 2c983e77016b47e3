// What a generated picture says about itself.
#pragma once

#include <cstdint>
#include <string>

#include "ringlet/pipeline/stable_diffusion.h"

namespace ringlet::pipeline {

/// SHA-256 of the model's weights as a fingerprint: of the single file, or of the U-Net's file in a
/// folder. Reads the whole file. Throws Error(io).
std::string model_hash(const ModelFiles& files);

/// The generation parameters in the form that SD web UIs write into and read from the PNG text
/// chunk "parameters": prompt, "Negative prompt: …", then "Steps: …, Sampler: …, …".
std::string generation_parameters(const GenerateRequest& request, std::uint64_t seed,
                                  const ModelFiles& model, const std::string& hash);

}  // namespace ringlet::pipeline
