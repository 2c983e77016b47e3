#include "ringlet/train/part_rates.h"

#include <cmath>
#include <string>

#include "ringlet/adapt/set/targets.h"
#include "ringlet/core/error.h"

namespace ringlet::train {
namespace {

/// Sets the factors of what the patterns match to their numbers times `unit`.
void set_by_pattern(std::vector<Trainable>& parameters, const RateFactors& numbers, double unit,
                    const Field& option, const std::string& what) {
  for (const auto& [pattern, number] : numbers) {
    if (!(number >= 0.0 && std::isfinite(number)))
      throw Error(ErrorCode::invalid_argument, option,
                  "the " + what + " of \"" + pattern + "\" must be 0 or above");
    bool any = false;
    for (Trainable& parameter : parameters) {
      if (!adapt::pattern_matches(pattern, parameter.name, option)) continue;
      parameter.rate_factor = number * unit;
      any = true;
    }
    if (!any)
      throw Error(ErrorCode::invalid_argument, option, "\"" + pattern + "\" matches no parameter",
                  parameters.empty() ? "" : "they are named like " + parameters.front().name);
  }
}

}  // namespace

std::vector<Trainable> with_rates(std::vector<Trainable> parameters,
                                  const TrainerOptions& options) {
  set_by_pattern(parameters, options.rate_factors, 1.0, Field("learning_rate_factor"), "factor");
  set_by_pattern(parameters, options.part_rates, 1.0 / options.learning_rate.peak,
                 Field("part_learning_rate"), "rate");
  if (options.lora_plus_ratio == 1.0) return parameters;
  bool any = false;
  for (Trainable& parameter : parameters)
    if (parameter.name.ends_with(".residual.up")) {
      parameter.rate_factor *= options.lora_plus_ratio;
      any = true;
    }
  if (!any)
    throw Error(ErrorCode::invalid_argument, Field("lora_plus_ratio"),
                "this method has no matrix that starts at zero", "LoRA+ is for lora and dora");
  return parameters;
}

}  // namespace ringlet::train
