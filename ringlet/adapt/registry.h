// The table of parts: their options, how they are built and how many parameters they have.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ringlet/adapt/method.h"
#include "ringlet/adapt/part.h"
#include "ringlet/adapt/parts/factors.h"
#include "ringlet/adapt/transform_residual.h"
#include "ringlet/core/error.h"
#include "ringlet/core/random.h"

namespace ringlet::adapt {

/// What a part is built from.
struct BuildContext {
  LayerShape shape;
  const nn::Layer& layer;  ///< some starts read its weight
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
  split,  ///< factors of a dimension, or none
};

struct OptionEntry {
  std::string name;
  OptionKind kind;
  OptionValue fallback;                 ///< ignored where `same_as` is given
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

  /// The row of an option, or nothing.
  const OptionEntry* option(std::string_view option) const;
};

/// The rows of T on this shape: the output channels with side=output, whole patches with
/// over=patches, else the input channels. Options that the part does not have do not count.
std::int64_t transform_width(const PartSpec& part, const LayerShape& shape);

/// Every part that ringlet knows. Adding one: its file pair and its entry here.
const std::vector<PartEntry>& part_registry();

/// The row of a part, or nothing.
const PartEntry* part_named(std::string_view name);

/// The row of a part that exists. Throws Error(invalid_argument) for another name.
const PartEntry& find_part(const std::string& name);

/// What is wrong with a number, as it was written, that an option cannot have.
Error wrong_number(const std::string& part, const OptionEntry& option, const std::string& shown);

/// The value that an option has unless it is chosen.
OptionValue default_value(const OptionEntry& option, const Options& options);

}  // namespace ringlet::adapt
