// What the program says on the terminal: messages, errors, progress, and how it hears Ctrl-C.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "ringlet/core/error.h"

namespace ringlet::app {

enum class Verbosity { quiet, normal, verbose };

/// Sends the library's messages to stderr, each warning once.
void start_logging(Verbosity verbosity);

/// Prints a result on stdout; paths that are not UTF-8 get replacement characters.
void print_json(const nlohmann::json& result);

/// Prints what a verb made: with `json` its result, otherwise the path of what it wrote.
void print_made(bool json, const nlohmann::json& result, const std::string& path);

/// Prints the error, its fields as options (as JSON on stdout with `json`) and returns its exit
/// status.
int report(const Error& problem, bool json);

/// From now on Ctrl-C, SIGTERM and SIGUSR1 (which Slurm can send before the time is up, and which
/// mpirun passes on) set a flag that `interrupted` reads; a second Ctrl-C or SIGTERM ends the
/// program.
void catch_interrupts();
bool interrupted();

/// A bar with the time left on a terminal; a line now and then otherwise.
class Progress {
 public:
  Progress(std::string what, std::size_t total, bool silent);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(const std::string& note = {});  ///< one step done; `note` is shown beside the bar

 private:
  void draw(bool last, const std::string& note);

  std::string what_;
  std::size_t total_;
  std::size_t done_ = 0;
  bool silent_;
  bool terminal_;
  std::chrono::steady_clock::time_point begin_, last_drawn_;
};

}  // namespace ringlet::app
