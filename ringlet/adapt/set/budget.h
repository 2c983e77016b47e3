// The sizes of a method's parts from a number of parameters.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "ringlet/adapt/method.h"
#include "ringlet/adapt/part.h"
#include "ringlet/adapt/parts/factors.h"
#include "ringlet/adapt/set/targets.h"

namespace ringlet::adapt {

/// Reads a number of parameters: "400000", "400k", "0.4M", "1.2G". Throws Error(invalid_argument).
std::int64_t parse_budget(std::string_view text);

/// The layers of one shape, for a table.
struct BudgetRow {
  LayerShape shape;
  std::int64_t layers = 0;      ///< how many have the shape
  Factors out, in;              ///< how its dimensions are split
  std::int64_t parameters = 0;  ///< of one such layer
};

struct BudgetedMethod {
  Method method;
  std::int64_t parameters = 0;  ///< on all targets
  std::vector<BudgetRow> rows;  ///< by first appearance
};

/// This method with one part made as large as the budget allows: the residual, or
/// without one the last transform that has a size. What grows is its `rank`, `block` or `n`:
///   - to the largest that has no more parameters than the budget and exists on every target (hra
///     has no odd rank, butterflies only blocks that divide the channels);
///   - of sizes next to it that come to the same, the least; of blocks, which are rounded to
///     divisors of the channels, the least that is one.
/// Alpha follows where it is the rank. Other options stay as they are, and so do other parts, but
/// that transforms whose rank was not chosen get rank 1 where nothing fits beside them. A
/// method without sizes comes back as it is, and a message says so.
/// A budget above the targets' own number of weights counts as that number: more than fine-tuning
/// has to offer would buy nothing.
/// Throws Error(invalid_argument) for no target, and when the smallest size does not fit, with its
/// number of parameters; as build_adapter when no size exists.
BudgetedMethod fit_budget(const Method& wanted, std::int64_t budget,
                          std::span<const Target> targets, FactorTable factors);

}  // namespace ringlet::adapt
