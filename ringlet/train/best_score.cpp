#include "ringlet/train/best_score.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::train {

void check_best(const BestScoreOptions& o, std::int64_t observe_every, std::int64_t ranks) {
  const Field option("early_stop");
  if (o.patience < 0) throw Error(ErrorCode::invalid_argument, option, "must not be negative");
  if (o.patience > 0 && o.name.empty())
    throw Error(ErrorCode::invalid_argument, option, "it needs a score to follow",
                "give `best_by=\"validation loss\"` as well");
  if (o.patience > 0 && ranks > 1)
    throw Error(ErrorCode::unsupported, option, "one rank alone measures scores",
                "leave it out, or train on one rank");
  if (!o.name.empty() && observe_every == 0)
    throw Error(ErrorCode::invalid_argument, Field("best_by"),
                "scores are measured before and after the run alone",
                "say how often, with `sample_every` of train or `evaluate_every` of tune");
}

std::string BestScore::text() const {
  return options_.name + " was best at step " + std::to_string(step_.value_or(0)) +
         "; the run ends here";
}

bool BestScore::add(std::int64_t step, std::span<const Score> scores) {
  if (options_.name.empty()) return false;
  const auto score = std::ranges::find(scores, options_.name, &Score::name);
  if (score == scores.end()) {
    std::vector<std::string> names;
    for (const Score& one : scores) names.push_back(one.name);
    throw Error(ErrorCode::invalid_argument, Field("best_by"),
                "no score is named \"" + options_.name + "\"",
                names.empty() ? "this run measures none" : "there are " + join(names));
  }
  const bool better =
      std::isfinite(score->value) &&
      (!step_ || (score->higher_is_better ? score->value > value_ : score->value < value_));
  ++since_;
  if (!better) return false;
  step_ = step;
  value_ = score->value;
  since_ = 0;
  return true;
}

}  // namespace ringlet::train
