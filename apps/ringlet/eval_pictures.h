// Pictures that `ringlet eval` makes before it measures them: what the command line says of them,
// and progress.
#pragma once

#include <optional>

#include <CLI/CLI.hpp>

#include "adapter_options.h"
#include "console.h"
#include "options.h"
#include "ringlet/service/evaluation_pictures.h"

namespace ringlet::app {

/// Adapters, device and precision; those alone matter that something is made or measured with.
/// Throws Error(invalid_argument | not_found).
void complete(service::EvaluationPictures& pictures, const AdapterOptions& adapters,
              const CommonOptions& common);

/// Without --model the options of the making would be ignored: Error(invalid_argument).
void check_making(const CLI::App& app, const service::EvaluationPictures& making);

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
