// Methods as values: the parts of an adapter with their options. method_text.h reads and prints
// them.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "ringlet/adapt/parts/factors.h"

namespace ringlet::adapt {

/// A size or count, a number, a word, or the factors of a dimension (empty: chosen by the part).
using OptionValue = std::variant<std::int64_t, double, std::string, Factors>;
using Options = std::map<std::string, OptionValue>;

/// One part with its options, for example lora and {rank: 4, alpha: 4}. make_part completes the
/// options with their defaults, so that equal parts have equal options.
struct PartSpec {
  std::string name;
  Options options;
  /// The options that were chosen rather than filled in. Two parts that differ in nothing else are
  /// equal.
  std::set<std::string> given = {};

  bool has(const std::string& key) const { return options.contains(key); }
  /// Values of options that the part has, of the type that the registry gives them.
  std::int64_t integer(const std::string& key) const;
  double number(const std::string& key) const;  ///< of an integer, too
  const std::string& word(const std::string& key) const;
  const Factors& factors(const std::string& key) const;
  bool yes(const std::string& key) const { return word(key) == "yes"; }

  bool operator==(const PartSpec& other) const {
    return name == other.name && options == other.options;
  }
};

/// Transforms, a residual, a magnitude, a bias: at least one of them, and at most one of each but
/// transforms. See make_method.
struct Method {
  std::vector<PartSpec> parts;

  bool operator==(const Method& other) const = default;
};

/// The part of this name with these options and the defaults of the others. Whole doubles are taken
/// for integers and the other way round, as the registry wants them. Throws Error(invalid_argument)
/// for a name, an option or a value that does not exist.
PartSpec make_part(const std::string& name, Options options = {});

/// The same part with another size, which counts as chosen. Options that take its value by default,
/// and have it, follow: alpha where it is the rank. Throws as make_part.
PartSpec with_size(const PartSpec& part, const std::string& option, std::int64_t size);

/// Throws Error(invalid_argument) for no part, more than 16, and two residuals, magnitudes or
/// biases.
Method make_method(std::vector<PartSpec> parts);

/// T-LoRA of the tensor-ring paper, trm(rank=2)+tr(rank=6), with ranks that count as not chosen.
Method tlora();

}  // namespace ringlet::adapt
