// Options that every verb has, and parsing with helpful errors.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "console.h"

namespace ringlet::app {

struct CommonOptions {
  std::string device = "auto";
  std::string precision;  ///< "" = fp32 on the CPU, auto on CUDA
  int threads = 0;        ///< 0 = one per processor, or what is faster: see automatic_threads
  bool json = false;
  bool quiet = false;
  bool verbose = false;

  void add_to(CLI::App& app);

  /// Starts logging and sets the thread count. Throws Error(invalid_argument).
  void apply() const;

  /// Whether the user has left the number of threads to the program.
  bool automatic_threads() const;

  c10::Device select_device() const;
  c10::ScalarType select_precision(c10::Device device) const;
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

/// Options that `add` adds stand under a title of their own in --help.
void add_group(CLI::App& app, const std::string& title, const std::function<void()>& add);

/// As refuse_given, of all options of a group.
void refuse_group(const CLI::App& app, const std::string& title, const std::string& what,
                  const std::string& hint);

/// The lines of a text file that are not empty. Throws Error(not_found), Error(invalid_argument)
/// for a file without any, and as read_text_file.
std::vector<std::string> read_lines(const std::string& path);

/// Where to go on after parsing: an exit status when the program is done (--help).
using ParseResult = std::optional<int>;

/// Parses argv of one verb. Unknown options become Error(invalid_argument) with the nearest known
/// name; bad values and config files too.
ParseResult parse(CLI::App& app, int argc, char** argv);

}  // namespace ringlet::app
