#include "ringlet/train/adapter_training.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "ringlet/adapt/build.h"
#include "ringlet/adapt/method_text.h"
#include "ringlet/core/error.h"
#include "ringlet/core/text.h"
#include "ringlet/train/norm_limit.h"
#include "ringlet/train/option_list.h"

namespace ringlet::train {
namespace {

void check_penalty(double weight) {
  if (!(weight >= 0.0 && weight <= std::numeric_limits<double>::max()))
    throw Error(ErrorCode::invalid_argument, Field("penalty"), "the weight must not be negative");
}

adapt::FactorTable factor_table(const AdapterTrainingOptions& options) {
  adapt::FactorTable factors;
  for (const auto& [size, split] : options.factors) factors.set(size, split);
  return factors;
}

/// The method with sizes for the budget; `rows` says how it was spent.
adapt::Method method_for_budget(const AdapterTrainingOptions& options,
                                std::span<const adapt::Target> targets,
                                std::vector<adapt::BudgetRow>& rows) {
  const adapt::Method* const method = options.method();
  if (method == nullptr)
    throw Error(ErrorCode::invalid_argument, Field("method"),
                learning_text(options.learning) + " has no adapters", "name a method");
  if (options.budget.empty()) return *method;
  adapt::BudgetedMethod budgeted = adapt::fit_budget(*method, adapt::parse_budget(options.budget),
                                                     targets, factor_table(options));
  rows = std::move(budgeted.rows);
  return std::move(budgeted.method);
}

adapt::AdapterSet build(const adapt::Method& method, const AdapterTrainingOptions& options,
                        std::span<const adapt::Target> targets,
                        std::span<const adapt::Target> whole, std::uint64_t seed) {
  std::vector<adapt::Assignment> assignments;
  for (const adapt::Target& target : targets) assignments.push_back({target, method});
  for (const adapt::Target& target : whole)
    assignments.push_back({target, adapt::make_method({adapt::make_part("diff")})});
  return adapt::AdapterSet::create(assignments, factor_table(options), Random(seed));
}

/// Factors by hand are of dimensions that the method splits. The formula for its parameters asks
/// the table for all of them.
void check_factors(const AdapterTrainingOptions& options, const adapt::Method& method,
                   std::span<const adapt::Target> targets) {
  adapt::FactorTable asked;
  for (const adapt::Target& target : targets)
    adapt::parameter_count(method, adapt::LayerShape::of(target.layer->shape()), asked);
  std::vector<std::string> sizes;
  for (const auto& [size, split] : asked.entries()) sizes.push_back(std::to_string(size));
  for (const auto& [size, split] : options.factors)
    if (!asked.entries().contains(size))
      throw Error(ErrorCode::invalid_argument, Field("factors"),
                  adapt::method_text(method) + " splits no dimension of " + std::to_string(size),
                  sizes.empty() ? "factors belong to tensor rings and trains: trm, tr, tt"
                                : "of the adapted layers it splits " + join(sizes));
}

}  // namespace

std::string learning_text(const Learning& learning) {
  if (const auto* const method = std::get_if<adapt::Method>(&learning))
    return adapt::method_text(*method);
  return std::holds_alternative<AllWeights>(learning) ? "full" : "none";
}

Json settings_of(const AdapterTrainingOptions& options) {
  AdapterTrainingOptions described = options;
  OptionList list;
  describe(list, described, "", "");
  Json settings = list.settings();
  settings["identity penalty"] = options.identity_penalty;
  settings["orthogonal penalty"] = options.orthogonal_penalty;
  // Checkpoints of earlier versions have none, and do not say so.
  if (options.scale_weight_norms == 0.0) settings.erase("scale weight norms");
  return settings;
}

void check_adapter_options(const AdapterTrainingOptions& o) {
  check_penalty(o.identity_penalty);
  check_penalty(o.orthogonal_penalty);
  if (o.method() != nullptr) return;
  const std::array<std::pair<Field, bool>, 11> of_adapters = {
      {{Field("penalty"), o.identity_penalty > 0.0 || o.orthogonal_penalty > 0.0},
       {Field("budget"), !o.budget.empty()},
       {Field("targets"), !o.targets.presets.empty()},
       {Field("include"), !o.targets.include.empty()},
       {Field("exclude"), !o.targets.exclude.empty()},
       {Field("factors"), !o.factors.empty()},
       {Field("dropout"), o.dropout.input > 0.0},
       {Field("rank_dropout"), o.dropout.rank > 0.0},
       {Field("module_dropout"), o.dropout.module > 0.0},
       {Field("scale_weight_norms"), o.scale_weight_norms > 0.0},
       {Field("init_adapter"), !o.init_adapter.empty()}}};
  for (const auto& [option, given] : of_adapters)
    if (given)
      throw Error(ErrorCode::invalid_argument, option,
                  "it applies to adapters, but `method=" + learning_text(o.learning) + "` has none",
                  "leave it out, or name an adapter's parts, for example `method=\"trm+tr\"`");
}

AdapterTraining::AdapterTraining(const AdapterTrainingOptions& options,
                                 std::span<const adapt::Target> targets, std::uint64_t seed,
                                 std::span<const adapt::Target> whole)
    : options_(options),
      seed_(seed),
      method_(method_for_budget(options, targets, budget_)),
      set_(build(method_, options, targets, whole, seed)) {
  begin_step(0);  // refuses what has no ranks
  end_steps();
  check_penalties();
  check_norms();
  if (!options.factors.empty()) check_factors(options, method_, targets);
}

void AdapterTraining::check_penalties() const {
  const auto has_penalty = [this](auto penalty) {
    return std::ranges::any_of(set_.entries(), [&](const adapt::AdapterSet::Entry& entry) {
      return std::ranges::any_of(entry.adapter->parts().transforms, [&](const auto& transform) {
        return penalty(*transform).defined();
      });
    });
  };
  const bool identity = options_.identity_penalty > 0.0 &&
                        !has_penalty([](const auto& t) { return t.identity_penalty(); });
  const bool orthogonal = options_.orthogonal_penalty > 0.0 &&
                          !has_penalty([](const auto& t) { return t.orthogonal_penalty(); });
  if (identity || orthogonal)
    throw Error(ErrorCode::invalid_argument, Field("penalty"),
                adapt::method_text(method_) + " has no such penalty",
                "penalties apply to tensor-ring transforms: trm");
}

void AdapterTraining::begin_step(std::int64_t micro_batch, const adapt::BatchRows& rows) const {
  if (options_.dropout.any())
    set_.begin_step(options_.dropout, Random(seed_), static_cast<std::uint64_t>(micro_batch), rows);
}

void AdapterTraining::check_norms() const {
  if (options_.scale_weight_norms > 0.0 && limited_residuals(set_) == 0)
    throw Error(ErrorCode::invalid_argument, Field("scale_weight_norms"),
                adapt::method_text(method_) + " has no residual of two matrices",
                "it is for residuals such as lora");
}

void AdapterTraining::end_update() const {
  if (options_.scale_weight_norms <= 0.0) return;
  end_steps();  // the norm is that of all ranks
  limit_norms(set_, options_.scale_weight_norms);
}

void AdapterTraining::end_steps() const { set_.begin_step({}, Random(seed_), 0); }

at::Tensor AdapterTraining::penalised(at::Tensor loss, double share) const {
  if (options_.identity_penalty <= 0.0 && options_.orthogonal_penalty <= 0.0) return loss;
  const auto add = [&loss, share](double weight, const at::Tensor& penalty) {
    if (weight > 0.0 && penalty.defined()) loss = loss + weight * share * penalty;
  };
  for (const auto& entry : set_.entries()) {
    for (const auto& transform : entry.adapter->parts().transforms) {
      add(options_.identity_penalty, transform->identity_penalty());
      add(options_.orthogonal_penalty, transform->orthogonal_penalty());
    }
  }
  return loss;
}

}  // namespace ringlet::train
