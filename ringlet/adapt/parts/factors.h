// How a dimension is split into the modes of a tensor ring.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ringlet::adapt {

using Factors = std::vector<std::int64_t>;

/// The product of the factors: the dimension, or more where it is padded.
std::int64_t product(const Factors& factors);

/// The sum of the factors' squares, which a core's size follows.
std::int64_t sum_of_squares(const Factors& factors);

/// `n` as `modes` factors, ascending.
///   1. the sizes of the paper's models have the split that gives its parameter counts;
///   2. else the balanced split (smallest sum of squares, which is what a core's size follows),
///      unless that is more than 1.3 times what equal factors would need;
///   3. else (primes, large prime factors) the balanced split of the next larger number, up to a
///      quarter larger, that has a good one, or the smallest there: the vector is padded with zeros
///      and the result is cut, so that an identity stays exact.
/// n >= 1, modes in [1, 8]. Throws Error(invalid_argument).
Factors factorise(std::int64_t n, int modes);

/// Splits by dimension, part of a saved adapter. Missing ones are made by factorise.
class FactorTable {
 public:
  explicit FactorTable(int modes = 3) : modes_(modes) {}

  /// Chooses the split of a dimension by hand. Throws Error(invalid_argument) when the product is
  /// smaller than n or several times larger, or the number of factors is not the table's.
  void set(std::int64_t n, Factors factors);
  const Factors& at(std::int64_t n);

  int modes() const { return modes_; }
  const std::map<std::int64_t, Factors>& entries() const { return entries_; }

 private:
  int modes_;
  std::map<std::int64_t, Factors> entries_;
};

std::string to_string(const Factors& factors);  ///< "4x8x10"

/// Reads "4x8x10". Throws Error(invalid_argument).
Factors parse_factors(const std::string& text);

}  // namespace ringlet::adapt
