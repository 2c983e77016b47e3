// How similar sentences are by a network of sentences.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "ringlet/core/option.h"
#include "ringlet/pipeline/merge.h"

namespace ringlet::service {

struct SimilarityRequest {
  std::filesystem::path model;  ///< folder with config.json and model.safetensors
  std::vector<pipeline::AdapterChoice> adapters;
  std::vector<std::string> sentences;  ///< two at least
  std::int64_t length = 0;             ///< tokens of a sentence; 0 = tune::usual_length
  c10::Device device = c10::kCPU;
  c10::ScalarType precision = c10::kFloat;
};

/// All but the adapters, the device and the precision, which are written otherwise on command
/// lines.
void describe(OptionList& list, SimilarityRequest& request);

/// The cosines of all pairs, [sentences, sentences] in fp32 on the CPU. Throws
/// Error(invalid_argument) for values out of range and less than two sentences, and as
/// tune::SentenceNetwork and load_adapters.
at::Tensor sentence_cosines(const SimilarityRequest& request);

}  // namespace ringlet::service
