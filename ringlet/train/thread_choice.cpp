#include "ringlet/train/thread_choice.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <set>

#include <ATen/Parallel.h>

namespace ringlet::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Seconds of a pass with so many threads: the mean, since waiting for others is part of it. Passes
/// that take long are timed once, after one that warms up.
double time_pass(int threads, const std::function<void()>& pass) {
  constexpr double kEnough = 1.0;
  constexpr int kMostPasses = 5;
  at::set_num_threads(threads);
  pass();
  const auto begin = Clock::now();
  int passes = 0;
  do {
    pass();
    ++passes;
  } while (passes < kMostPasses && seconds_since(begin) < kEnough);
  return seconds_since(begin) / passes;
}

/// From the most to one.
std::set<int, std::greater<>> candidates(int most, double busy) {
  std::set<int, std::greater<>> numbers;
  for (int number = most; number > 0; number /= 2) numbers.insert(number);
  const int free = most - static_cast<int>(std::lround(busy));
  if (free > 0) numbers.insert(free);
  return numbers;
}

}  // namespace

std::string ThreadChoice::text() const {
  char line[160];
  if (measured.empty()) {
    std::snprintf(line, sizeof line, "%d, one per processor (other programs use %.1f)", threads,
                  busy);
    return line;
  }
  std::snprintf(line, sizeof line,
                "%d of %d, since other programs use %.1f processors: a pass takes", threads, most,
                busy);
  std::string all = line;
  for (const auto& [number, seconds] : measured) {
    std::snprintf(line, sizeof line, "%s %.2f s with %d",
                  number == measured.front().first ? "" : ",", seconds, number);
    all += line;
  }
  return all;
}

ThreadChoice choose_threads(int most, double busy, const std::function<void()>& pass) {
  ThreadChoice choice{most, most, busy, {}};
  if (most > 1 && busy >= kQuiet) {
    double best = 0.0;
    for (const int number : candidates(most, busy)) {
      const double seconds = time_pass(number, pass);
      choice.measured.emplace_back(number, seconds);
      if (best > 0.0 && seconds >= best) break;
      best = seconds;
      choice.threads = number;
    }
  }
  at::set_num_threads(choice.threads);
  return choice;
}

}  // namespace ringlet::train
