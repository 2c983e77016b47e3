#include "ringlet/adapt/set/budget.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "ringlet/adapt/build.h"
#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/registry.h"
#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/nn/torch_errors.h"

namespace ringlet::adapt {
namespace {

constexpr std::array kSizes = {"rank", "block", "n"};

/// The option that sets the part's size, or "".
std::string size_of(const PartSpec& part) {
  // A number of blocks is the whole size of an oft, whatever `block` says beside it.
  if (part.has("blocks") && part.integer("blocks") > 0) return "";
  for (const char* name : kSizes)
    if (part.has(name)) return name;
  return "";
}

/// The part with another `rank`, `block` or `n`.
PartSpec resized(const PartSpec& part, std::int64_t size) {
  return with_size(part, size_of(part), size);
}

/// Distinct shapes with their numbers of layers; the parameters are filled in at the end.
std::vector<BudgetRow> count_shapes(std::span<const Target> targets, FactorTable& factors) {
  std::vector<BudgetRow> rows;
  std::map<std::vector<std::int64_t>, std::size_t> places;
  for (const Target& target : targets) {
    const LayerShape shape = LayerShape::of(target.layer->shape());
    const auto [place, is_new] = places.emplace(shape.sizes(), rows.size());
    if (is_new) rows.push_back({shape, 0, factors.at(shape.out), factors.at(shape.in), 0});
    ++rows[place->second].layers;
  }
  return rows;
}

/// One target of each kind that a method may treat in another way, small ones first: a size that
/// does not exist is found out before a large layer is started.
std::vector<const Target*> examples_of(std::span<const Target> targets) {
  std::set<std::tuple<std::string, std::vector<std::int64_t>, bool>> seen;
  std::vector<const Target*> examples;
  for (const Target& target : targets) {
    const nn::Layer& layer = *target.layer;
    if (seen.emplace(target.component, layer.shape().vec(), layer.bias().defined()).second)
      examples.push_back(&target);
  }
  std::ranges::stable_sort(
      examples, {}, [](const Target* target) { return target->layer->stored_weight().numel(); });
  return examples;
}

/// A method's sizes on the targets, tried one by one.
class Search {
 public:
  /// Throws as build_adapter where a part whose size stays does not exist.
  Search(const Method& wanted, std::span<const Target> targets, FactorTable& factors)
      : method_(wanted),
        rows_(count_shapes(targets, factors)),
        examples_(examples_of(targets)),
        factors_(factors) {
    const auto is = [&](std::size_t i, PartKind kind) {
      return find_part(method_.parts[i].name).kind == kind;
    };
    bool residual = false;
    for (std::size_t i = 0; i < method_.parts.size(); ++i)
      residual = residual || is(i, PartKind::residual);
    for (std::size_t i = 0; i < method_.parts.size(); ++i)
      if (!size_of(method_.parts[i]).empty() &&
          is(i, residual ? PartKind::residual : PartKind::transform))
        growing_ = i;
    Method others = method_;
    if (growing_) others.parts.erase(others.parts.begin() + static_cast<std::ptrdiff_t>(*growing_));
    if (!others.parts.empty()) build(others);
    others_ = count(others);
  }

  bool grows() const { return growing_.has_value(); }
  const std::vector<BudgetRow>& rows() const { return rows_; }

  std::int64_t count(const Method& method) const {
    std::int64_t total = 0;
    for (const PartSpec& part : method.parts) total += count(part);
    return total;
  }

  /// The largest method within the budget, if there is one.
  std::optional<Method> within(std::int64_t budget) const {
    if (grows())
      if (const std::int64_t size = largest(std::min(budget, weights())); size > 0)
        return at_size(size);
    // Even the smallest may have more parameters than there are weights.
    Method least = smallest();
    if (count(least) > budget) return std::nullopt;
    return least;
  }

  /// The method at the smallest size that exists. Throws as build_adapter where none does.
  Method smallest() const {
    if (!grows()) return method_;
    for (std::int64_t size = 1; size <= largest_size(); ++size)
      if (exists(size)) return at_size(size);
    build({{growing()}});
    return method_;
  }

  /// Gives transforms beside the growing part rank 1 unless their rank was chosen. False when
  /// there are none.
  bool lower_transforms() {
    bool any = false;
    for (std::size_t i = 0; i < method_.parts.size(); ++i) {
      PartSpec& part = method_.parts[i];
      if (i == growing_ || size_of(part) != "rank" || part.given.contains("rank") ||
          find_part(part.name).kind != PartKind::transform)
        continue;
      others_ -= count(part);
      part = resized(part, 1);
      others_ += count(part);
      any = true;
    }
    return any;
  }

 private:
  const PartSpec& growing() const { return method_.parts[*growing_]; }

  Method at_size(std::int64_t size) const {
    Method method = method_;
    method.parts[*growing_] = resized(growing(), size);
    return method;
  }

  std::int64_t count(const PartSpec& part) const {
    const PartEntry& entry = find_part(part.name);
    std::int64_t total = 0;
    for (const BudgetRow& row : rows_)
      total += row.layers * entry.parameter_count(part, row.shape, factors_);
    return total;
  }

  /// Of the growing part alone.
  std::int64_t count(std::int64_t size) const { return count(resized(growing(), size)); }

  std::int64_t weights() const {
    std::int64_t total = 0;
    for (const BudgetRow& row : rows_) total += row.layers * row.shape.out * row.shape.patch();
    return total;
  }

  /// A size above which nothing new comes: as many ranks as the weights may have (or 1024, as VeRA
  /// may have more), one block, all of a weight's numbers.
  std::int64_t largest_size() const {
    constexpr std::int64_t kRanks = 1024;
    std::int64_t out = 1, patch = 1, width = 1, numbers = 1;
    for (const BudgetRow& row : rows_) {
      out = std::max(out, row.shape.out);
      patch = std::max(patch, row.shape.patch());
      width = std::max(width, transform_width(growing(), row.shape));
      numbers = std::max(numbers, row.shape.out * row.shape.patch());
    }
    const std::string option = size_of(growing());
    const std::int64_t most = option == "rank"    ? std::max(kRanks, std::min(out, patch))
                              : option == "block" ? width
                                                  : numbers;
    return std::min(most, kLargestSize);
  }

  /// The largest size that has at most `most` parameters with the other parts and exists, or 0.
  std::int64_t largest(std::int64_t most) const {
    const auto fits = [&](std::int64_t size) { return others_ + count(size) <= most; };
    std::int64_t size = largest_size();
    if (size_of(growing()) == "n") {  // too many to try them all
      std::int64_t bad = size + 1;
      size = 0;
      while (bad - size > 1) {
        const std::int64_t middle = (size + bad) / 2;
        (fits(middle) ? size : bad) = middle;
      }
    }
    // Other counts need not rise with the size: a whole factor of a Kronecker product may have
    // fewer numbers than two of a high rank.
    while (size > 0 && !(fits(size) && exists(size))) --size;
    return size > 0 ? simplest(size) : 0;
  }

  /// Of the sizes next to this one that have as many parameters, the least that exists; of blocks,
  /// the least that divides all channels.
  std::int64_t simplest(std::int64_t size) const {
    const std::int64_t same = count(size);
    std::int64_t least = size;
    while (least > 1 && count(least - 1) == same) --least;
    if (size_of(growing()) == "block")
      for (std::int64_t block = least; block <= size; ++block)
        if (std::ranges::all_of(rows_, [&](const BudgetRow& row) {
              return transform_width(growing(), row.shape) % block == 0;
            }))
          return block;
    while (least < size && !exists(least)) ++least;
    return least;
  }

  /// Whether every layer can have the growing part at this size, and some parameters with it.
  bool exists(std::int64_t size) const {
    const PartSpec part = resized(growing(), size);
    if (count(part) == 0) return false;  // blocks of one number do not rotate
    try {
      build({{part}});
      return true;
    } catch (const Error&) {
      return false;
    }
  }

  /// On the examples; throws where it does not exist.
  void build(const Method& method) const {
    std::map<std::string, SharedContext> shared;
    for (const Target* each : examples_)
      shared[each->component].include(LayerShape::of(each->layer->shape()));
    for (const Target* each : examples_)
      build_adapter(method, *each->layer, factors_, Random(0), each->full_name(),
                    shared.at(each->component));
  }

  Method method_;
  std::vector<BudgetRow> rows_;
  std::vector<const Target*> examples_;
  FactorTable& factors_;
  std::optional<std::size_t> growing_;
  std::int64_t others_ = 0;  ///< parameters of the parts that do not grow
};

}  // namespace

std::int64_t parse_budget(std::string_view text) {
  const auto fail = [&]() -> Error {
    return {ErrorCode::invalid_argument, Field("budget"),
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

BudgetedMethod fit_budget(const Method& wanted, std::int64_t budget,
                          std::span<const Target> targets, FactorTable factors) {
  if (targets.empty())
    throw Error(ErrorCode::invalid_argument, Field("budget"),
                "there is nothing to spend the parameters on", "choose layers");
  return nn::with_ringlet_errors(Field("budget"), [&] {
    Search search(wanted, targets, factors);
    std::optional<Method> method = search.within(budget);
    if (!method && search.lower_transforms()) method = search.within(budget);
    if (!method) {
      const Method smallest = search.smallest();
      throw Error(ErrorCode::invalid_argument, Field("budget"),
                  method_text(smallest) + " on " + std::to_string(targets.size()) + " layers has " +
                      std::to_string(search.count(smallest)) + " parameters, more than " +
                      std::to_string(budget),
                  "raise the budget, choose a part with fewer parameters, or adapt fewer layers "
                  "with `targets`, `include` and `exclude`");
    }
    if (!search.grows())
      log(LogLevel::info,
          "`budget`: " + method_text(*method) + " is unchanged; it has no size to choose");
    BudgetedMethod found{std::move(*method), 0, search.rows()};
    found.parameters = search.count(found.method);
    for (BudgetRow& row : found.rows)
      row.parameters = parameter_count(found.method, row.shape, factors);
    return found;
  });
}

}  // namespace ringlet::adapt
