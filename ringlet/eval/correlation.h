// How two lists of numbers correlate.
#pragma once

#include <span>

namespace ringlet::eval {

/// Pearson's coefficient; 0 where one list is constant. Throws Error(mismatch) for lists of other
/// lengths, Error(invalid_argument) for fewer than two numbers.
double pearson(std::span<const double> a, std::span<const double> b);

/// Spearman's coefficient: Pearson's of the ranks, equal numbers sharing the mean of theirs. Throws
/// as pearson.
double spearman(std::span<const double> a, std::span<const double> b);

}  // namespace ringlet::eval
