// `--nodes-plan`: how long steps would take on more ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json_fwd.hpp>

#include "ringlet/core/option.h"
#include "ringlet/train/process_group.h"
#include "ringlet/train/run.h"

namespace ringlet::app {

struct NodesPlanOptions {
  std::string ranks;                            ///< "2,4,8"; "" = no such plan
  double gigabits = 10.0, microseconds = 50.0;  ///< of the network
  std::optional<double> step_seconds;           ///< of one rank; measured where it is not given

  void add_to(OptionList& list);

  /// Throws Error(invalid_argument) for what are no numbers of ranks, and for options that would
  /// be ignored.
  void check(const CLI::App& app) const;
  std::vector<std::int64_t> counts() const;
};

/// Measures what is not given, and predicts. The network is measured where `group` has several
/// ranks; all of them call it.
nlohmann::json plan_nodes(train::Run& run, const NodesPlanOptions& options,
                          train::ProcessGroup* group, const train::StageProgress& progress);

/// The same as a table on stdout.
void print_nodes_plan(const nlohmann::json& plan);

}  // namespace ringlet::app
