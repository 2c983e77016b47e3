// How a model's files are opened: the same options for every verb that opens one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "ringlet/core/option.h"
#include "ringlet/diffusion/sampler_table.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::app {

/// --variant and --tokenizer, and for verbs that generate or train also --prediction.
struct ModelOptions {
  std::string variant, tokenizer, prediction;

  void add_files(OptionList& list);
  void add_prediction(OptionList& list);

  pipeline::ModelFileOptions files() const;

  /// What the model predicts, where that was given. Throws Error(invalid_argument) for other words.
  std::optional<diffusion::Prediction> chosen_prediction() const;
};

/// --sampler and --spacing.
struct SamplerOptions {
  std::string sampler, spacing;

  void add_to(OptionList& list);

  /// What was given; no entry = the model's own sampler. Throws Error(invalid_argument).
  diffusion::SamplerChoice chosen() const;
};

/// --clip-skip.
void add_clip_skip(OptionList& list, std::int64_t& layer);

}  // namespace ringlet::app
