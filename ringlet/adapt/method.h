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
#include "ringlet/adapt/vera.h"
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
  const std::string& word(const std::string& key) const { return options.at(key); }
  bool yes(const std::string& key) const { return word(key) == "yes"; }
};

/// Transforms, a residual, a magnitude, a bias: at least one of them.
struct Method {
  std::vector<PartSpec> parts;

  std::string text() const;  ///< canonical: parse_method(text()) is the same method
};

/// What a part is built from.
struct BuildContext {
  LayerShape shape;
  const at::Tensor& weight;  ///< W0, which some starts read
  bool has_bias;
  FactorTable& factors;
  RandomStream random;  ///< the part's own stream
  SharedTensors& shared;
  LayerShape widest;  ///< the largest dimensions of the layers that are adapted together
  bool load;          ///< the numbers come from a file, so that costly starts may be left out
};

/// The largest rank, block or number of factors that a method may name.
inline constexpr std::int64_t kLargestSize = 1'000'000;

/// How a kind of option value is checked.
enum class OptionKind {
  positive_integer,  ///< a size that parameters grow with: at most kLargestSize
  count,             ///< a whole number above 0 that may be larger
  whole,             ///< 0, 1, 2, …
  integer,           ///< also negative
  number,            ///< above 0
  non_negative,
  word,
  split,  ///< "8x40", or nothing
};

struct OptionEntry {
  std::string name;
  OptionKind kind;
  std::string fallback;                 ///< "" = as `same_as`
  std::string same_as = {};             ///< takes the value of another option by default
  std::vector<std::string> words = {};  ///< allowed values of kind word
  bool always = false;                  ///< written in a method's text at its default, too
};

enum class PartKind { transform, residual, magnitude, bias };

/// A row of the registry.
struct PartEntry {
  std::string name;
  PartKind kind;
  std::vector<OptionEntry> options;
  std::function<void(const PartSpec&, const BuildContext&, Parts&)> build;
  /// The formula for the number of parameters, apart from the code that makes them.
  std::function<std::int64_t(const PartSpec&, const LayerShape&, FactorTable&)> parameter_count;
};

/// Every part that ringlet knows. Adding one: its file pair and its entry here.
const std::vector<PartEntry>& part_registry();

/// The row of a part that exists.
const PartEntry& find_part(const std::string& name);

/// Names that stand for others: dora(rank=8) is magnitude+lora(rank=8).
std::vector<std::string> method_aliases();

/// The texts of a method's parts and aliases, without blanks: what stands between its plus signs.
/// One inside brackets belongs to a number: "lora(alpha=1e+05)+magnitude" has two parts.
std::vector<std::string> split_method(std::string_view text);

/// Reads a method text or an alias. Every finite number that exact_number writes is read as the
/// same number again. Throws Error(invalid_argument) with the nearest name.
Method parse_method(std::string_view text);

/// What the layers that are adapted together have in common.
struct SharedContext {
  SharedTensors tensors = {};
  LayerShape widest = {0, 0};
  bool load = false;  ///< see BuildContext

  void include(const LayerShape& shape);
};

/// The adapter of one layer at its neutral start. Its random numbers depend on the seed and the
/// layer's dotted name alone, not on which other layers there are. `shared` must have included the
/// layer. Throws Error(unsupported) where a method does not exist for the layer.
std::shared_ptr<TransformResidual> build_adapter(const Method& method, const nn::Layer& layer,
                                                 FactorTable& factors, const Random& random,
                                                 const std::string& name, SharedContext& shared);

/// The same for a layer that shares nothing.
std::shared_ptr<TransformResidual> build_adapter(const Method& method, const nn::Layer& layer,
                                                 FactorTable& factors, const Random& random,
                                                 const std::string& name);

/// Parameters of a method on a layer, by formula.
std::int64_t parameter_count(const Method& method, const LayerShape& shape, FactorTable& factors);

}  // namespace ringlet::adapt
