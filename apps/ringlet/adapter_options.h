// Adapters on the command line: --adapter FILE[:strength].
#pragma once

#include <string>
#include <vector>

#include "ringlet/core/option.h"
#include "ringlet/pipeline/merge.h"

namespace ringlet::app {

/// --adapter and --block-strength.
struct AdapterOptions {
  std::vector<std::string> files;
  std::vector<std::string> blocks;

  void add_to(OptionList& list);
};

/// Reads FILE or FILE:strength, and PATTERN=strength for blocks. Throws Error(invalid_argument |
/// not_found).
std::vector<pipeline::AdapterChoice> parse_adapters(const AdapterOptions& options);

}  // namespace ringlet::app
