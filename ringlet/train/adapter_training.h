// The adapters of a training run: chosen, built, penalised, dropped out; whatever the network.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/method.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/adapt/set/budget.h"
#include "ringlet/core/json.h"

namespace ringlet::train {

struct AllWeights {};  ///< of the network, without adapters
struct NoWeights {};   ///< of the network: a ControlNet beside it learns alone

/// What learns of a network: adapters of a method, or one of the other two.
using Learning = std::variant<adapt::Method, AllWeights, NoWeights>;

/// For plans, settings and messages: the method's text, "full" or "none".
std::string learning_text(const Learning& learning);

struct AdapterTrainingOptions {
  Learning learning = adapt::tlora();
  std::string budget;  ///< "0.4M": the method's size is chosen for so many parameters
  adapt::TargetOptions targets;
  std::map<std::int64_t, adapt::Factors> factors;  ///< splits chosen by hand
  double identity_penalty = 0.0;
  double orthogonal_penalty = 0.0;
  adapt::Dropout dropout = {};
  double scale_weight_norms = 0.0;  ///< see norm_limit.h; 0 = no limit
  /// An adapter file to start from, with its method, factors and layers.
  std::filesystem::path init_adapter = {};

  /// Of the adapters, or nothing.
  const adapt::Method* method() const { return std::get_if<adapt::Method>(&learning); }
  bool full() const { return std::holds_alternative<AllWeights>(learning); }
};

/// What a resumed run must find unchanged of the options, beside the method.
Json settings_of(const AdapterTrainingOptions& options);

/// Everything about the options that is wrong whatever the network. Throws Error(invalid_argument).
void check_adapter_options(const AdapterTrainingOptions& options);

class AdapterTraining {
 public:
  /// Adapters of the options' method on `targets` at their start, not attached; `whole` are layers,
  /// such as a new head, whose weights are trained in full (method diff). Throws
  /// Error(invalid_argument) for a budget that cannot be met, and penalties, dropouts and factors
  /// that the method has no use for.
  AdapterTraining(const AdapterTrainingOptions& options, std::span<const adapt::Target> targets,
                  std::uint64_t seed, std::span<const adapt::Target> whole = {});

  adapt::AdapterSet& set() { return set_; }
  const adapt::AdapterSet& set() const { return set_; }
  const adapt::Method& method() const { return method_; }  ///< with the sizes of the budget
  const std::vector<adapt::BudgetRow>& budget() const { return budget_; }

  /// Draws what a micro-batch leaves out; `rows` of it are seen.
  void begin_step(std::int64_t micro_batch, const adapt::BatchRows& rows = {}) const;
  /// After an update of the parameters: the largest norm.
  void end_update() const;

  /// Ends dropout: for evaluation and samples.
  void end_steps() const;

  /// The loss with the penalties on top, or with a share of them.
  at::Tensor penalised(at::Tensor loss, double share = 1.0) const;

 private:
  void check_penalties() const;
  void check_norms() const;

  AdapterTrainingOptions options_;
  std::uint64_t seed_;
  std::vector<adapt::BudgetRow> budget_;
  adapt::Method method_;
  adapt::AdapterSet set_;
};

}  // namespace ringlet::train
