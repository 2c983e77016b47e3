// --canny-low and --canny-high, for every verb that finds edges.
#pragma once

#include <CLI/CLI.hpp>

#include "ringlet/core/option.h"
#include "ringlet/data/control_signal.h"

namespace ringlet::app {

void add_canny(OptionList& list, data::CannyThresholds& thresholds);

/// Thresholds where no edges are computed would be ignored: Error(invalid_argument).
void check_canny(const CLI::App& app, bool finds_edges);

}  // namespace ringlet::app
