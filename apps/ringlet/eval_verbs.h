// The verbs of `ringlet eval`, and what they share.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "ringlet/core/option.h"
#include "ringlet/eval/control_evaluation.h"
#include "ringlet/eval/evaluation.h"

namespace ringlet::app {

int cmd_eval_control(int argc, char** argv);
int cmd_eval_compare(int argc, char** argv);
int cmd_eval_difference(int argc, char** argv);
int cmd_eval_set(int argc, char** argv);
int cmd_eval_similarity(int argc, char** argv);
int cmd_eval_subject(int argc, char** argv);

/// Where results go beside the terminal.
struct EvalOutput {
  std::string json;
  std::string html;

  void add_to(OptionList& list);

  /// Writes the files, and prints the table, or JSON when asked to. `pictures`: captions and PNGs
  /// for the page.
  void write(const eval::Evaluation& evaluation,
             const std::vector<std::pair<std::string, std::string>>& pictures,
             bool print_json) const;
};

/// References beside what was generated for them, some pairs a sheet, as captions and PNGs.
std::vector<std::pair<std::string, std::string>> pair_sheets(
    const std::vector<eval::ControlPair>& pairs);

}  // namespace ringlet::app
