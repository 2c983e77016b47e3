// Ranks from a number of parameters.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ringlet/adapt/factors.h"
#include "ringlet/adapt/method.h"
#include "ringlet/adapt/part.h"

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

struct BudgetPlan {
  Method method;
  std::int64_t parameters = 0;  ///< of all layers
  std::vector<BudgetRow> rows;  ///< by first appearance
};

/// The method of this text with the ranks whose parameters on `layers` come nearest to the budget
/// without exceeding it; other options stay as they are:
///   - a transform beside a residual keeps its rank (2, what the paper uses, where the text names
///     none), or gets 1 if the residual would not fit beside it;
///   - the residual, or the only part, gets the largest rank that fits the rest: with one rank more
///     the budget would be exceeded.
/// A budget above the layers' own number of weights counts as that number: more than fine-tuning
/// has to offer would buy nothing. Throws Error(invalid_argument) when rank 1 does not fit, with
/// the smallest number possible, and as parse_method.
BudgetPlan fit_budget(std::int64_t budget, const std::vector<LayerShape>& layers,
                      FactorTable factors, std::string_view method = "trm+tr");

}  // namespace ringlet::adapt
