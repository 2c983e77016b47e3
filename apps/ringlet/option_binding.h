// From descriptions of options (ringlet/core/option.h) to the command line and its reference.
#pragma once

#include <string>
#include <string_view>

#include <CLI/CLI.hpp>

#include "ringlet/core/option.h"

namespace ringlet::app {

/// The title of the options that every verb has.
inline constexpr const char* kCommonOptions = "Common options";

/// Adds the options to a verb; what is parsed goes where they point. The list must outlive `app`'s
/// parsing.
void bind(CLI::App& app, const OptionList& options);

/// A verb's description and its options as Markdown: a section of docs/cli.md. Those under
/// kCommonOptions are left out.
std::string reference(const CLI::App& app, const OptionList& options);

/// The options of the list, one item each, wrapped at 100 columns.
std::string reference(const OptionList& options);

}  // namespace ringlet::app
