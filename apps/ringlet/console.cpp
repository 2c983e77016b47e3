#include "console.h"

#include <csignal>
#include <cstdio>
#include <functional>
#include <set>
#include <string>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "option_words.h"
#include "ringlet/core/log.h"
#include "ringlet/core/text.h"

namespace ringlet::app {
namespace {

volatile std::sig_atomic_t interrupt_seen = 0;

void on_interrupt(int signal_number) {
  interrupt_seen = 1;
  // Launchers may send theirs twice: to a process and through its parent.
  if (signal_number != SIGUSR1) std::signal(signal_number, SIG_DFL);
}

/// "1:05" or "2:03:10".
std::string clock_text(double seconds) {
  const auto total = static_cast<long>(seconds + 0.5);
  char text[32];
  if (total >= 3600)
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", total / 3600, total / 60 % 60, total % 60);
  else
    std::snprintf(text, sizeof text, "%ld:%02ld", total / 60, total % 60);
  return text;
}

}  // namespace

void start_logging(Verbosity verbosity) {
  if (verbosity == Verbosity::quiet) return;
  // A model that a verb opens twice would say twice what is odd about it.
  set_log_sink([verbosity, said = std::set<std::string, std::less<>>()](
                   LogLevel level, std::string_view message) mutable {
    if (level == LogLevel::debug && verbosity != Verbosity::verbose) return;
    if (level == LogLevel::warning && !said.emplace(message).second) return;
    const char* prefix = level == LogLevel::warning ? "warning: " : "";
    std::fprintf(stderr, "%s%s\n", prefix, printable(with_options(message)).c_str());
  });
}

void print_json(const nlohmann::json& result) {
  const std::string text =
      result.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void print_made(bool json, const nlohmann::json& result, const std::string& path) {
  if (json)
    print_json(result);
  else
    std::printf("%s\n", path.c_str());
}

int report(const Error& problem, bool json) {
  const Error error = with_options(problem);
  if (json) {
    const nlohmann::json out = {{"error",
                                 {{"code", to_string(error.code())},
                                  {"where", error.where()},
                                  {"message", error.message()},
                                  {"hint", error.hint()}}}};
    print_json(out);
  } else {
    std::fprintf(stderr, "ringlet: error: %s\n", error.what());
  }
  return exit_status(error.code());
}

void catch_interrupts() {
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  std::signal(SIGUSR1, on_interrupt);
}

bool interrupted() { return interrupt_seen != 0; }

Progress::Progress(std::string what, std::size_t total, bool silent)
    : what_(std::move(what)),
      total_(total),
      silent_(silent),
      terminal_(isatty(STDERR_FILENO) != 0),
      begin_(std::chrono::steady_clock::now()),
      last_drawn_(begin_) {
  if (terminal_ && !silent_) draw(false, "");
}

Progress::~Progress() {
  if (terminal_ && !silent_) std::fputc('\n', stderr);
}

void Progress::advance(const std::string& note) {
  ++done_;
  if (silent_) return;
  constexpr auto kOnTerminal = std::chrono::milliseconds(50);
  constexpr auto kInLogs = std::chrono::seconds(10);
  const auto now = std::chrono::steady_clock::now();
  const bool last = done_ >= total_;
  if (!last && now - last_drawn_ < (terminal_ ? kOnTerminal : kInLogs)) return;
  last_drawn_ = now;
  draw(last, note);
}

void Progress::draw(bool last, const std::string& note) {
  constexpr std::size_t kWidth = 30;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  const double each = done_ == 0 ? 0.0 : seconds / static_cast<double>(done_);
  const std::string time = last ? clock_text(seconds) + " in all"
                                : clock_text(each * static_cast<double>(total_ - done_)) + " left";
  if (!terminal_) {
    std::fprintf(stderr, "%s: step %zu of %zu, %.2f s/step, %s%s%s\n", what_.c_str(), done_, total_,
                 each, time.c_str(), note.empty() ? "" : ", ", note.c_str());
    return;
  }
  const std::size_t filled = total_ == 0 ? kWidth : kWidth * done_ / total_;
  const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
  std::fprintf(stderr, "\r%s [%s] %zu/%zu  %.2f s/step  %s  %s   ", what_.c_str(), bar.c_str(),
               done_, total_, each, time.c_str(), note.c_str());
  std::fflush(stderr);
}

}  // namespace ringlet::app
