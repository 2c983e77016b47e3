// Pictures that `ringlet eval` makes before it measures them: options and progress.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "adapter_options.h"
#include "console.h"
#include "model_options.h"
#include "options.h"
#include "ringlet/eval/generation_record.h"
#include "ringlet/service/evaluation_pictures.h"

namespace ringlet::app {

/// How pictures are made, whatever they show.
struct MakingOptions {
  ModelOptions files;
  std::string model;
  AdapterOptions adapters;
  SamplerOptions sampler;
  std::int64_t samples, steps = 30, clip_skip = 1;
  std::uint64_t seed = 1;
  double guidance = 7.5;

  explicit MakingOptions(std::int64_t usual_samples) : samples(usual_samples) {}

  /// The options of the model, --samples, and those of the sampler: a verb adds its own in between.
  void add_model(OptionList& list, const char* model_help);
  void add_sampling(OptionList& list, const char* samples_help);
  void add_seed(OptionList& list);

  /// What is made into `folder`. Throws Error(invalid_argument | not_found).
  service::EvaluationPictures pictures(const CommonOptions& common,
                                       const std::string& folder) const;

  /// The entries of a result that say what was made: the record, and the paths as given.
  std::vector<std::pair<std::string, std::string>> settings(
      const eval::GenerationRecord& record) const;
};

/// The title in --help of the options that say how pictures are made.
inline constexpr const char* kMaking = "Making the pictures that --generated lacks";

/// Without --model its options would be ignored: Error(invalid_argument).
void check_making(const CLI::App& app, const std::string& model);

/// A progress bar over prompts or references; an interrupt stops the generation.
class MakingProgress {
 public:
  explicit MakingProgress(const CommonOptions& common) : silent_(common.quiet || common.json) {}

  service::MakingObserver observer();

 private:
  bool silent_;
  std::optional<Progress> bar_;
};

}  // namespace ringlet::app
