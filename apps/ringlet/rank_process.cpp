#include "rank_process.h"

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

#include "console.h"
#include "option_words.h"
#include "ringlet/core/log.h"
#include "ringlet/core/text.h"

namespace ringlet::app {
namespace {

/// The group that this process has joined.
std::shared_ptr<train::ProcessGroup>& joined() {
  static std::shared_ptr<train::ProcessGroup> group;
  return group;
}

/// 0 for a process of its own.
std::int64_t own_rank() {
  try {
    const auto launch = train::find_launch();
    return launch ? launch->rank : 0;
  } catch (const Error&) {
    return 0;  // this may be what is reported
  }
}

/// How long rank 0 may take to report: it may be writing a checkpoint.
std::chrono::seconds patience() {
  constexpr std::chrono::seconds kUsual(2), kByLauncher(5), kForCheckpoint(15);
  const auto& group = joined();
  if (!group) return kByLauncher;
  if (!group->lost_some()) return kUsual;
  return group->lost_first() ? std::chrono::seconds(0) : kForCheckpoint;
}

/// Whether this process was told to end meanwhile.
bool ended_by_first() {
  constexpr auto kPause = std::chrono::milliseconds(20);
  const auto until = std::chrono::steady_clock::now() + patience();
  while (std::chrono::steady_clock::now() < until) {
    if (interrupted()) return true;
    std::this_thread::sleep_for(kPause);
  }
  return false;
}

}  // namespace

std::shared_ptr<train::ProcessGroup> join_ranks(double timeout, bool verbose) {
  const std::optional<train::Launch> launch = train::find_launch();
  if (!launch) return nullptr;
  joined() = train::ProcessGroup::join(*launch, timeout);
  const std::string rank = "rank " + std::to_string(joined()->rank());
  if (joined()->rank() > 0)
    set_log_sink(!verbose ? LogSink() : [rank](LogLevel, std::string_view message) {
      std::fprintf(stderr, "%s: %s\n", rank.c_str(), printable(with_options(message)).c_str());
    });
  return joined();
}

int report_of_rank(const Error& problem, bool json) {
  const std::int64_t rank = own_rank();
  const auto& group = joined();
  const bool together = group && !group->finished();
  int status = exit_status(problem.code());
  if (rank == 0) {
    status = report(problem, json);
  } else {
    // What all ranks have come to together, such as the end after an interrupt, is rank 0's to say.
    if ((group && !together) || ended_by_first()) return status;
    std::fprintf(stderr, "ringlet: rank %lld: error: %s\n", static_cast<long long>(rank),
                 with_options(problem).what());
  }
  std::fflush(stdout);
  if (together) group->end_all(status);
  return status;
}

}  // namespace ringlet::app
