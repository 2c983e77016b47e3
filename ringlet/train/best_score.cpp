#include "ringlet/train/best_score.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ringlet/core/error.h"
#include "ringlet/core/text.h"

namespace ringlet::train {

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
