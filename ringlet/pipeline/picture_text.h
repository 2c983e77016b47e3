// What a generated picture says about itself.
#pragma once

#include <cstdint>
#include <string>

#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::pipeline {

/// SHA-256 of the first of a model's hash_files as its fingerprint. Reads the whole file. Throws
/// Error(io).
std::string model_hash(const ModelDescription& model);

/// The generation parameters of a checked request in the form that SD web UIs write into and read
/// from the PNG text chunk "parameters": prompt, "Negative prompt: …", then "Steps: …, Sampler: …,
/// …".
std::string generation_parameters(const GenerateRequest& request, std::uint64_t seed,
                                  const ModelDescription& model, const std::string& hash);

}  // namespace ringlet::pipeline
