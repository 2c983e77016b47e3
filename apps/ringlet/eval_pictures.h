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
#include "options.h"
#include "ringlet/eval/generation_record.h"
#include "ringlet/service/evaluation_pictures.h"

namespace ringlet::app {

/// How pictures are made, whatever they show.
struct MakingOptions {
  service::EvaluationPictures made;
  AdapterOptions adapters;

  explicit MakingOptions(std::int64_t usual_samples) { made.samples = usual_samples; }

  bool wanted() const { return !made.model.empty(); }

  /// `of`: as service::describe has it.
  void add_to(OptionList& list, const std::string& of);

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
void check_making(const CLI::App& app, const MakingOptions& making);

/// A bar over prompts or references; an interrupt ends the making.
class MakingProgress {
 public:
  explicit MakingProgress(const CommonOptions& common) : silent_(common.quiet || common.json) {}

  service::MakingObserver observer();

 private:
  bool silent_;
  std::optional<Progress> bar_;
};

}  // namespace ringlet::app
