#include "ringlet/eval/ranking_metrics.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "ringlet/core/error.h"

namespace ringlet::eval {

RankingScore ranking_score(std::span<const std::int64_t> ranked,
                           std::span<const std::int64_t> wanted, std::int64_t k) {
  if (wanted.empty() || k < 1)
    throw Error(ErrorCode::invalid_argument, "evaluation", "a ranking has no relevant item");
  const auto gain = [](std::int64_t place) {
    return 1.0 / std::log2(static_cast<double>(place) + 1.0);
  };
  std::set<std::int64_t> left(wanted.begin(), wanted.end());
  const std::int64_t possible = std::min(k, static_cast<std::int64_t>(left.size()));
  double hits = 0.0, sum = 0.0, best = 0.0;
  for (std::int64_t place = 1; place <= std::min(k, static_cast<std::int64_t>(ranked.size()));
       ++place) {
    if (left.erase(ranked[static_cast<std::size_t>(place - 1)]) == 0) continue;
    ++hits;
    sum += gain(place);
  }
  for (std::int64_t place = 1; place <= possible; ++place) best += gain(place);
  return {hits / static_cast<double>(possible), sum / best};
}

}  // namespace ringlet::eval
