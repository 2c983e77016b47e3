#include "ringlet/adapt/parts/factors.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "ringlet/core/error.h"

namespace ringlet::adapt {
namespace {

constexpr int kMostModes = 8;

/// A split by hand may be this many times larger than its dimension.
constexpr std::int64_t kMostPadding = 4;

/// The only split into three factors that gives both of the paper's parameter counts on Stable
/// Diffusion 1.5; the balanced one would be 5x8x8.
const Factors kPaper320 = {4, 8, 10};

/// Extends `chosen` by ascending factors of `rest` and keeps the best complete split.
void search(std::int64_t rest, int modes, Factors& chosen, Factors& best) {
  if (modes == 1) {
    chosen.push_back(rest);
    if (best.empty() || sum_of_squares(chosen) < sum_of_squares(best)) best = chosen;
    chosen.pop_back();
    return;
  }
  const std::int64_t smallest = chosen.empty() ? 1 : chosen.back();
  for (std::int64_t factor = smallest; std::pow(factor, modes) <= static_cast<double>(rest) * 1.001;
       ++factor) {
    if (rest % factor != 0) continue;
    chosen.push_back(factor);
    search(rest / factor, modes - 1, chosen, best);
    chosen.pop_back();
  }
}

Factors balanced(std::int64_t n, int modes) {
  Factors chosen, best;
  search(n, modes, chosen, best);
  return best;
}

bool is_good(const Factors& factors, std::int64_t n) {
  constexpr double kTolerated = 1.3;
  const double modes = static_cast<double>(factors.size());
  const double equal = modes * std::pow(static_cast<double>(n), 2.0 / modes);
  return static_cast<double>(sum_of_squares(factors)) <= kTolerated * equal;
}

}  // namespace

std::int64_t sum_of_squares(const Factors& factors) {
  std::int64_t sum = 0;
  for (const std::int64_t factor : factors) sum += factor * factor;
  return sum;
}

std::int64_t product(const Factors& factors) {
  std::int64_t total = 1;
  for (const std::int64_t factor : factors) total *= factor;
  return total;
}

Factors factorise(std::int64_t n, int modes) {
  if (n < 1 || modes < 1 || modes > kMostModes)
    throw Error(ErrorCode::invalid_argument, "factors",
                std::to_string(n) + " cannot be split into " + std::to_string(modes) + " factors",
                "use 1 to 8 modes");
  if (n == product(kPaper320) && modes == static_cast<int>(kPaper320.size())) return kPaper320;
  Factors best = balanced(n, modes);
  if (is_good(best, n)) return best;
  const std::int64_t most = n + n / 4 + 1;
  for (std::int64_t padded = n + 1; padded <= most; ++padded) {
    Factors factors = balanced(padded, modes);
    if (is_good(factors, n)) return factors;
    if (sum_of_squares(factors) < sum_of_squares(best)) best = std::move(factors);
  }
  return best;
}

void FactorTable::set(std::int64_t n, Factors factors) {
  if (static_cast<int>(factors.size()) != modes_)
    throw Error(ErrorCode::invalid_argument, "factors",
                to_string(factors) + " does not have " + std::to_string(modes_) + " factors");
  std::int64_t total = 1;
  bool too_large = false;
  for (const std::int64_t factor : factors)
    too_large = too_large || __builtin_mul_overflow(total, factor, &total);
  if (too_large || total / kMostPadding > n)
    throw Error(ErrorCode::invalid_argument, "factors",
                to_string(factors) + " is too large for the dimension " + std::to_string(n));
  if (total < n)
    throw Error(ErrorCode::invalid_argument, "factors",
                to_string(factors) + " is too small for the dimension " + std::to_string(n));
  entries_[n] = std::move(factors);
}

const Factors& FactorTable::at(std::int64_t n) {
  const auto found = entries_.find(n);
  return found != entries_.end() ? found->second
                                 : entries_.emplace(n, factorise(n, modes_)).first->second;
}

std::string to_string(const Factors& factors) {
  std::string text;
  for (const std::int64_t factor : factors)
    text += (text.empty() ? "" : "x") + std::to_string(factor);
  return text;
}

Factors parse_factors(const std::string& text) {
  const auto fail = [&]() -> Error {
    return {ErrorCode::invalid_argument, "factors", "\"" + text + "\" is not a list of factors",
            "write for example 4x8x10"};
  };
  Factors factors;
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  while (true) {
    std::int64_t factor = 0;
    const auto [next, problem] = std::from_chars(at, end, factor);
    if (problem != std::errc() || factor < 1 || factor > std::numeric_limits<std::int32_t>::max())
      throw fail();
    factors.push_back(factor);
    if (next == end) return factors;
    if (*next != 'x' || factors.size() >= kMostModes) throw fail();
    at = next + 1;
  }
}

}  // namespace ringlet::adapt
