// The best step of a run by one of its scores, and when to stop without a better one.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "ringlet/train/score.h"

namespace ringlet::train {

struct BestScoreOptions {
  std::string name;  ///< of the score; "" = none is followed
  std::int64_t patience =
      0;  ///< observations without a better one before a run ends; 0 = it does not
};

/// Refuses what cannot be: a patience without a score, scores that are measured before and after
/// the run alone, several ranks, of which one measures. Throws Error(invalid_argument |
/// unsupported).
void check_best(const BestScoreOptions& options, std::int64_t observe_every, std::int64_t ranks);

class BestScore {
 public:
  explicit BestScore(BestScoreOptions options) : options_(std::move(options)) {}

  /// Whether the scores of a step are the best so far. Nothing that is not finite is. Throws
  /// Error(invalid_argument) where none has the name, with those that there are.
  bool add(std::int64_t step, std::span<const Score> scores);

  std::optional<std::int64_t> step() const { return step_; }
  double value() const { return value_; }
  std::string text() const;  ///< why a run ends, for people

  /// Whether the run is to end: patience observations came after the best one.
  bool ends() const { return options_.patience > 0 && since_ >= options_.patience; }

 private:
  BestScoreOptions options_;
  std::optional<std::int64_t> step_;
  double value_ = 0.0;
  std::int64_t since_ = 0;
};

}  // namespace ringlet::train
