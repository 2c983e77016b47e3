// Numbers that say how well a network does on held-out examples.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ringlet::train {

struct Score {
  std::string name;
  bool higher_is_better = true;
  double value = 0.0;
};

/// The scores at one step.
struct ScoreRow {
  std::int64_t step = 0;
  std::vector<Score> scores;
};

}  // namespace ringlet::train
