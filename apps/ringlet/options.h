// Options that every verb has, and parsing with helpful errors.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "console.h"
#include "ringlet/core/option.h"
#include "ringlet/nn/device.h"

namespace ringlet::app {

struct CommonOptions {
  std::string device = "auto";
  std::string precision;  ///< "" = fp32 on the CPU, auto on CUDA
  int threads = 0;        ///< 0 = one per processor, or what is faster: see automatic_threads
  bool json = false;
  bool quiet = false;
  bool verbose = false;
  bool deterministic = false;
  bool tf32 = false;

  void add_to(OptionList& options);

  /// deterministic and tf32, for verbs that compute much on a device.
  void add_arithmetic_to(OptionList& options);

  /// Starts logging and sets the thread count. Throws Error(invalid_argument).
  void apply() const;

  /// Whether the user has left the number of threads to the program.
  bool automatic_threads() const;

  c10::Device select_device() const;  ///< with the arithmetic that was asked for
  c10::ScalarType select_precision(c10::Device device, nn::Work work = nn::Work::inference) const;
};

/// Refuses all but the digits of a 64-bit number: CLI11 takes "-1" for 2^64 - 1 and "010" for 8.
CLI::Validator whole_number();

/// An option that takes one value and may be given several times.
void repeatable(CLI::Option* option);

/// Refuses options that were given, on the command line or in a config file, although they say
/// nothing: Error(invalid_argument) with the first one's name. Values alone do not tell, for those
/// that have a default.
void refuse_given(const CLI::App& app, std::initializer_list<const char*> options,
                  const std::string& what, const std::string& hint);

/// As refuse_given, of all options of a group.
void refuse_group(const CLI::App& app, const std::string& title, const std::string& what,
                  const std::string& hint);

/// In place of a verb's options: what `ringlet help --markdown` asks every verb for.
inline constexpr const char* kAsMarkdown = "--help-as-markdown";

/// What follows parsing: an exit status when the program is done (--help).
using ParseResult = std::optional<int>;

/// Adds the options to the verb and parses its argv. Unknown options become Error(invalid_argument)
/// with the nearest known name; bad values, numbers out of range and config files too. kAsMarkdown
/// alone prints the verb's section of the reference.
ParseResult parse(CLI::App& app, const OptionList& options, int argc, char** argv);

}  // namespace ringlet::app
