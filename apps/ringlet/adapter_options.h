// Adapters on the command line: --adapter FILE[:strength].
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "ringlet/adapt/adapter_set.h"
#include "ringlet/pipeline/merge.h"

namespace ringlet::app {

void add_adapter_option(CLI::App& app, std::vector<std::string>& adapters);

/// Reads FILE or FILE:strength. Throws Error(invalid_argument | not_found).
std::vector<pipeline::AdapterChoice> parse_adapters(const std::vector<std::string>& texts);

/// Loads adapters for a model and sets their strengths; they are not attached. `model_hash` may be
/// empty. Throws as load_adapter.
std::vector<adapt::AdapterSet> load_adapters(const pipeline::StableDiffusion& model,
                                             const std::vector<pipeline::AdapterChoice>& choices,
                                             const std::string& model_hash);

/// "name:1, other:0.5".
std::string describe_adapters(const std::vector<pipeline::AdapterChoice>& choices);

}  // namespace ringlet::app
