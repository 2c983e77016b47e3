// The verbs of `ringlet eval`, and what they share.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "options.h"
#include "ringlet/eval/control_evaluation.h"
#include "ringlet/eval/evaluation.h"
#include "ringlet/pipeline/stable_diffusion.h"

namespace ringlet::app {

int cmd_eval_control(int argc, char** argv);
int cmd_eval_compare(int argc, char** argv);
int cmd_eval_difference(int argc, char** argv);
int cmd_eval_set(int argc, char** argv);
int cmd_eval_subject(int argc, char** argv);

/// Where results go beside the terminal.
struct EvalOutput {
  std::string json;
  std::string html;

  void add_to(CLI::App& app);

  /// Writes the files, and prints the table, or JSON when asked to. `pictures`: captions and PNGs
  /// for the page.
  void write(const eval::Evaluation& evaluation,
             const std::vector<std::pair<std::string, std::string>>& pictures,
             bool print_json) const;
};

/// What a model is opened with to make pictures to measure.
pipeline::LoadOptions load_options(const CommonOptions& common);

/// Those of the seeds first, first + 1, … whose picture is not there yet.
std::vector<std::uint64_t> missing_seeds(
    std::uint64_t first, std::int64_t count,
    const std::function<std::filesystem::path(std::uint64_t seed)>& file_of);

/// The pictures of a request. Throws Error(cancelled) after an interrupt.
std::vector<io::Image> make_pictures(const pipeline::StableDiffusion& model,
                                     const pipeline::GenerateRequest& request);

/// References beside what was generated for them, some pairs a sheet, as captions and PNGs.
std::vector<std::pair<std::string, std::string>> pair_sheets(
    const std::vector<eval::ControlPair>& pairs);

}  // namespace ringlet::app
