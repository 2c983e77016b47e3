// --canny-low and --canny-high, for every verb that finds edges.
#pragma once

#include <CLI/CLI.hpp>

namespace ringlet::app {

/// Thresholds where no edges are found would be ignored: Error(invalid_argument).
void check_canny(const CLI::App& app, bool finds_edges);

}  // namespace ringlet::app
