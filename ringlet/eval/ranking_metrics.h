// How well things that somebody will want are ranked above the others.
#pragma once

#include <cstdint>
#include <span>

namespace ringlet::eval {

struct RankingScore {
  double recall = 0.0;  ///< recall@k: wanted ones among the first k / min(k, all wanted)
  double ndcg = 0.0;    ///< NDCG@k: sum of 1 / log2(place + 1) over the best such sum
};

/// Of a ranked list, the best first, and what was wanted of it (places count from 1; what is there
/// twice counts once). Both numbers as in Liang et al. 2018. Throws Error(invalid_argument) when
/// nothing was wanted or k < 1.
RankingScore ranking_score(std::span<const std::int64_t> ranked,
                           std::span<const std::int64_t> wanted, std::int64_t k);

}  // namespace ringlet::eval
