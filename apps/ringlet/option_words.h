// The library's field names in the spelling of the command line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ringlet/core/error.h"

namespace ringlet::app {

/// The option that a field is on the command line: "--steps" for "steps", "--class-prompt" for
/// "run.class_prompt".
std::string option_of(std::string_view field);

/// A message of the library with every marked field (core/error.h) as the option: "use
/// `precision=fp32`" becomes "use --precision fp32". Other text between back quotes stays.
std::string with_options(std::string_view message);
std::vector<std::string> with_options(const std::vector<std::string>& messages);

/// The error as the user of the command line reads it: a place that is a field, and the fields
/// that message and hint name, are options.
Error with_options(const Error& error);

}  // namespace ringlet::app
