// Methods as text: "trm(rank=2)+tr(rank=6)", "lora(rank=4,alpha=4)", "tlora".
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ringlet/adapt/factors.h"
#include "ringlet/adapt/part.h"
#include "ringlet/adapt/transform_residual.h"
#include "ringlet/core/random.h"

namespace ringlet::adapt {

/// One part with its options, for example lora and {rank: 4, alpha: 4}. Options are completed with
/// their defaults, so that equal methods have equal texts.
struct PartSpec {
  std::string name;
  std::map<std::string, std::string> options;

  /// Option values; the parser has checked that they are what they must be.
  std::int64_t integer(const std::string& key) const;
  double number(const std::string& key) const;
};

/// A transform, a residual, or both.
struct Method {
  std::vector<PartSpec> parts;

  std::string text() const;  ///< canonical: parse_method(text()) is the same method
};

/// What a part is built from.
struct BuildContext {
  LayerShape shape;
  FactorTable& factors;
  RandomStream random;  ///< the part's own stream
};

/// How a kind of option value is checked.
enum class OptionKind { positive_integer, number, word };

struct OptionEntry {
  std::string name;
  OptionKind kind;
  std::string fallback;                 ///< "" = as `same_as`
  std::string same_as;                  ///< takes the value of another option by default
  std::vector<std::string> words = {};  ///< allowed values of kind word
};

/// A row of the registry. Exactly one of the two makers is set.
struct PartEntry {
  std::string name;
  std::vector<OptionEntry> options;
  std::function<std::unique_ptr<Transform>(const PartSpec&, BuildContext&)> make_transform;
  std::function<std::unique_ptr<Residual>(const PartSpec&, BuildContext&)> make_residual;
  /// The formula for the number of parameters, apart from the code that makes them.
  std::function<std::int64_t(const PartSpec&, const LayerShape&, FactorTable&)> parameter_count;
};

/// Every part that ringlet knows. Adding one: its file pair and its entry here.
const std::vector<PartEntry>& part_registry();

/// Reads a method text or an alias (tlora, tlora-star). Throws Error(invalid_argument) with the
/// nearest name.
Method parse_method(std::string_view text);

/// The adapter of one layer at its neutral start. Its random numbers depend on the seed and the
/// layer's dotted name alone, not on which other layers there are.
std::shared_ptr<TransformResidual> build_adapter(const Method& method, const LayerShape& shape,
                                                 FactorTable& factors, const Random& random,
                                                 const std::string& layer);

/// Parameters of a method on a layer, by formula.
std::int64_t parameter_count(const Method& method, const LayerShape& shape, FactorTable& factors);

}  // namespace ringlet::adapt
