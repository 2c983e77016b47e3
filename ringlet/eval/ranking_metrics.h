// How well relevant items are ranked above the others.
#pragma once

#include <cstdint>
#include <span>

namespace ringlet::eval {

struct RankingScore {
  double recall = 0.0;  ///< recall@k: relevant items among the first k / min(k, all relevant)
  double ndcg = 0.0;    ///< NDCG@k: sum of 1 / log2(place + 1) over the best such sum
};

/// Of a ranked list, the best first, and the items that are relevant (places count from 1; an
/// item listed twice counts once). Both numbers as in Liang et al. 2018. Throws
/// Error(invalid_argument) when no item is relevant or k < 1.
RankingScore ranking_score(std::span<const std::int64_t> ranked,
                           std::span<const std::int64_t> wanted, std::int64_t k);

}  // namespace ringlet::eval
