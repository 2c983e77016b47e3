#include "ringlet/adapt/budget.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <tuple>

#include "ringlet/adapt/scale_method.h"
#include "ringlet/core/error.h"

namespace ringlet::adapt {
namespace {

constexpr std::int64_t kLargestRank = 1'000'000;  // what parse_method takes

/// Distinct shapes with their numbers of layers; the rest of the rows is filled in at the end.
std::vector<BudgetRow> count_shapes(const std::vector<LayerShape>& layers, FactorTable& factors) {
  const auto key = [](const LayerShape& shape) {
    return std::tuple(shape.out, shape.in, shape.kernel_height, shape.kernel_width,
                      shape.convolution);
  };
  std::vector<BudgetRow> rows;
  for (const LayerShape& shape : layers) {
    const auto found = std::ranges::find_if(
        rows, [&](const BudgetRow& row) { return key(row.shape) == key(shape); });
    if (found != rows.end())
      ++found->layers;
    else
      rows.push_back({shape, 1, factors.at(shape.out), factors.at(shape.in), 0});
  }
  return rows;
}

/// A method's parts with other ranks, on counted layers.
class Search {
 public:
  Search(Method base, std::vector<BudgetRow>& rows, FactorTable& factors)
      : base_(std::move(base)), rows_(rows), factors_(factors) {
    if (base_.parts.size() == 2 && find_part(base_.parts.back().name).kind == PartKind::transform)
      std::swap(base_.parts.front(), base_.parts.back());
  }

  /// What the method says of the transform's rank when there are two parts.
  std::int64_t first_rank() const {
    const PartSpec& first = base_.parts.front();
    return base_.parts.size() == 2 && first.options.contains("rank") ? first.integer("rank") : 1;
  }

  /// `first` is the transform's rank when there are two parts.
  Method method(std::int64_t first, std::int64_t last) const {
    Method method = base_;
    for (PartSpec& part : method.parts)
      if (part.options.contains("rank"))
        set_size(part, &part == &method.parts.back() ? last : first);
    return method;
  }

  std::int64_t count(const Method& method) const {
    std::int64_t total = 0;
    for (const BudgetRow& row : rows_)
      total += row.layers * parameter_count(method, row.shape, factors_);
    return total;
  }

  /// The largest rank of the last part that fits, or 0.
  std::int64_t largest(std::int64_t first, std::int64_t budget) const {
    const auto fits = [&](std::int64_t rank) { return count(method(first, rank)) <= budget; };
    if (!fits(1)) return 0;
    std::int64_t good = 1, bad = 2;
    while (bad <= kLargestRank && fits(bad)) {
      good = bad;
      bad *= 2;
    }
    bad = std::min(bad, kLargestRank + 1);
    while (bad - good > 1) {
      const std::int64_t middle = (good + bad) / 2;
      (fits(middle) ? good : bad) = middle;
    }
    return good;
  }

 private:
  Method base_;
  std::vector<BudgetRow>& rows_;
  FactorTable& factors_;
};

}  // namespace

std::int64_t parse_budget(std::string_view text) {
  const auto fail = [&]() -> Error {
    return {ErrorCode::invalid_argument, "--budget",
            "\"" + std::string(text) + "\" is not a number of parameters",
            "write for example 400000, 400k or 0.4M"};
  };
  std::string_view digits = text;
  double unit = 1.0;
  if (!text.empty()) {
    switch (text.back()) {
      case 'k':
      case 'K':
        unit = 1e3;
        break;
      case 'm':
      case 'M':
        unit = 1e6;
        break;
      case 'g':
      case 'G':
        unit = 1e9;
        break;
      default:
        break;
    }
    if (unit != 1.0) digits.remove_suffix(1);
  }
  constexpr double kLargest = 1e12;
  double number = 0.0;
  const char* const end = digits.data() + digits.size();
  const auto [next, problem] =
      std::from_chars(digits.data(), end, number, std::chars_format::fixed);
  if (problem != std::errc() || next != end) throw fail();
  const double parameters = std::round(number * unit);
  if (!(parameters >= 1.0) || parameters > kLargest) throw fail();
  return static_cast<std::int64_t>(parameters);
}

BudgetPlan fit_budget(std::int64_t budget, const std::vector<LayerShape>& layers,
                      FactorTable factors, std::string_view method) {
  if (layers.empty())
    throw Error(ErrorCode::invalid_argument, "--budget",
                "there is nothing to spend the parameters on", "choose layers");
  BudgetPlan plan;
  plan.rows = count_shapes(layers, factors);
  const Search search(parse_method(method), plan.rows, factors);

  std::int64_t weights = 0;
  for (const LayerShape& shape : layers) weights += shape.out * shape.in * shape.positions();
  const std::int64_t smallest = search.count(search.method(1, 1));
  const std::int64_t most = std::min(budget, std::max(weights, smallest));

  std::int64_t first = search.first_rank();
  std::int64_t last = search.largest(first, most);
  if (last == 0) last = search.largest(first = 1, most);
  if (last == 0)
    throw Error(ErrorCode::invalid_argument, "--budget",
                search.method(1, 1).text() + " on " + std::to_string(layers.size()) +
                    " layers has " + std::to_string(smallest) + " parameters, more than " +
                    std::to_string(budget),
                "raise the budget, choose a part with fewer parameters, or adapt fewer layers with "
                "--targets, --include and --exclude");
  plan.method = search.method(first, last);
  plan.parameters = search.count(plan.method);
  for (BudgetRow& row : plan.rows)
    row.parameters = parameter_count(plan.method, row.shape, factors);
  return plan;
}

}  // namespace ringlet::adapt
