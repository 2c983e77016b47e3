#include "ringlet/adapt/scale_method.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ringlet/core/error.h"

namespace ringlet::adapt {
namespace {

constexpr std::array kSizes = {"rank", "block", "n"};
constexpr std::int64_t kLargest = 1'000'000;  // what parse_method takes

/// The option that sets the part's size, or "".
std::string size_of(const PartSpec& part) {
  for (const char* name : kSizes)
    if (part.options.contains(name)) return name;
  return "";
}

/// The layers of one shape.
struct ShapeGroup {
  Target example;
  LayerShape shape;
  std::int64_t layers = 0;
};

std::vector<ShapeGroup> group(std::span<const Target> targets) {
  std::map<std::vector<std::int64_t>, ShapeGroup> groups;
  for (const Target& target : targets) {
    ShapeGroup& found = groups[target.layer->weight().sizes().vec()];
    found.example = target;
    found.shape = LayerShape::of(target.layer->weight());
    ++found.layers;
  }
  std::vector<ShapeGroup> list;
  list.reserve(groups.size());
  for (auto& [shape, found] : groups) list.push_back(std::move(found));
  return list;
}

class Scaling {
 public:
  Scaling(Method base, std::span<const Target> targets, FactorTable& factors)
      : base_(std::move(base)), groups_(group(targets)), factors_(factors) {
    for (std::size_t i = 0; i < base_.parts.size(); ++i) {
      if (size_of(base_.parts[i]).empty()) continue;
      const PartKind kind = find_part(base_.parts[i].name).kind;
      if (kind == PartKind::residual || (kind == PartKind::transform && !has_residual()))
        growing_ = i;
    }
  }

  bool grows() const { return growing_.has_value(); }

  bool has_residual() const {
    return std::ranges::any_of(base_.parts, [](const PartSpec& part) {
      return find_part(part.name).kind == PartKind::residual;
    });
  }

  /// Gives the transforms beside a residual rank 1.
  void make_transforms_small() {
    for (std::size_t i = 0; i < base_.parts.size(); ++i)
      if (i != growing_ && size_of(base_.parts[i]) == "rank" &&
          find_part(base_.parts[i].name).kind == PartKind::transform)
        set_size(base_.parts[i], 1);
  }

  Method at_size(std::int64_t size) const {
    Method method = base_;
    if (growing_) set_size(method.parts[*growing_], size);
    return method;
  }

  std::int64_t count(const Method& method) const {
    std::int64_t total = 0;
    for (const ShapeGroup& each : groups_)
      total += each.layers * parameter_count(method, each.shape, factors_);
    return total;
  }

  std::int64_t weights() const {
    std::int64_t total = 0;
    for (const ShapeGroup& each : groups_)
      total += each.layers * each.shape.out * each.shape.patch();
    return total;
  }

  /// The largest size that has at most `most` parameters and exists on every layer, or 0.
  std::int64_t largest(std::int64_t most) const {
    if (count(at_size(1)) > most) return 0;
    const std::int64_t last =
        first_size([&](std::int64_t s) { return count(at_size(s)) > most; }, kLargest + 1) - 1;
    std::int64_t size = simplest(last);
    while (size > 0 && !exists(at_size(size))) --size;
    return size;
  }

  /// On a layer of each shape; throws where it does not exist.
  void build(const Method& method) const {
    for (const ShapeGroup& each : groups_)
      build_adapter(method, *each.example.layer, factors_, Random(0), each.example.full_name());
  }

 private:
  /// The first size in [1, last] of which a statement holds that holds from there on; `last` when
  /// of none before.
  template <class Statement>
  static std::int64_t first_size(const Statement& holds, std::int64_t last) {
    std::int64_t low = 0, high = 1;  // does not hold for low
    while (high < last && !holds(high)) {
      low = high;
      high = std::min(2 * high, last);
    }
    while (high - low > 1) {
      const std::int64_t middle = (low + high) / 2;
      (holds(middle) ? high : low) = middle;
    }
    return high;
  }

  /// Of the sizes with as many parameters as `last`, the least; of blocks, which are rounded to
  /// divisors, the least that is one.
  std::int64_t simplest(std::int64_t last) const {
    const std::int64_t same = count(at_size(last));
    const std::int64_t least =
        first_size([&](std::int64_t s) { return count(at_size(s)) == same; }, last);
    if (!growing_ || size_of(base_.parts[*growing_]) != "block") return least;
    for (std::int64_t size = least; size <= last; ++size)
      if (std::ranges::all_of(groups_,
                              [&](const ShapeGroup& each) { return each.shape.in % size == 0; }))
        return size;
    return least;
  }

  bool exists(const Method& method) const {
    try {
      build(method);
      return true;
    } catch (const Error&) {
      return false;
    }
  }

  Method base_;
  std::vector<ShapeGroup> groups_;
  FactorTable& factors_;
  std::optional<std::size_t> growing_;
};

}  // namespace

void set_size(PartSpec& part, std::int64_t size) {
  const std::string name = size_of(part);
  if (name.empty()) return;
  const std::string before = std::exchange(part.options.at(name), std::to_string(size));
  const auto alpha = part.options.find("alpha");
  if (name == "rank" && alpha != part.options.end() && alpha->second == before)
    alpha->second = std::to_string(size);
}

ScaledMethod scale_to_budget(std::string_view text, std::int64_t budget,
                             std::span<const Target> targets, FactorTable factors) {
  if (targets.empty())
    throw Error(ErrorCode::invalid_argument, "--budget",
                "there is nothing to spend the parameters on", "choose layers");
  Scaling scaling(parse_method(text), targets, factors);
  const std::int64_t most =
      std::min(budget, std::max(scaling.weights(), scaling.count(scaling.at_size(1))));
  std::int64_t size = scaling.largest(most);
  if (size == 0 && text.find("rank=") == std::string_view::npos) {
    scaling.make_transforms_small();
    size = scaling.largest(most);
  }
  if (size == 0) {
    const Method smallest = scaling.at_size(1);
    if (scaling.count(smallest) <= most) scaling.build(smallest);  // throws: no size exists
    throw Error(ErrorCode::invalid_argument, "--budget",
                smallest.text() + " on " + std::to_string(targets.size()) + " layers has " +
                    std::to_string(scaling.count(smallest)) + " parameters; the budget is " +
                    std::to_string(budget),
                "raise the budget, choose a part with fewer parameters, or fewer layers with "
                "--targets, --include and --exclude");
  }
  ScaledMethod scaled;
  scaled.method = scaling.at_size(scaling.grows() ? size : 1);
  scaled.parameters = scaling.count(scaled.method);
  return scaled;
}

}  // namespace ringlet::adapt
