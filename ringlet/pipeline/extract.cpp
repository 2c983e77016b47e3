#include "ringlet/pipeline/extract.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <c10/util/StringUtil.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/adapt/set/budget.h"
#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/json.h"
#include "ringlet/core/text.h"
#include "ringlet/core/version.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/pipeline/other_network.h"
#include "ringlet/pipeline/picture_text.h"
#include "ringlet/pipeline/rounding.h"

namespace ringlet::pipeline {
namespace {

namespace fs = std::filesystem;
using Indices = std::map<std::string, nn::ModuleIndex>;  // by component

struct OpenedModel {
  Indices indices;
  std::string hash, name;
  std::string kind = {};  ///< of a text-to-image model

  adapt::Components components() const {
    adapt::Components all;
    for (const auto& [component, index] : indices) all.emplace(component, &index);
    return all;
  }
};

std::string full_name(const std::string& component, const std::string& name) {
  return component + "." + name;
}

OpenedModel open_tensors(const std::shared_ptr<const nn::FileStore>& file,
                         const std::string& component) {
  OpenedModel model{{}, "", file->files().front()->path().filename().string()};
  model.indices.emplace(component, layers_of(file));
  return model;
}

OpenedModel open_model(const fs::path& path, const ModelFileOptions& files, bool with_hash) {
  LoadOptions load;
  load.files = files;
  load.low_memory = true;
  const auto model = open_text_to_image_model(path, load);
  const ModelDescription& description = model->description();
  OpenedModel opened{{}, "", description.name, description.kind};
  for (const auto& [name, index] : adaptable(*model)) opened.indices.emplace(name, *index);
  if (with_hash && !description.hash_files.empty()) opened.hash = model_hash(description);
  return opened;
}

void check_same_shapes(const OpenedModel& base, const OpenedModel& tuned, const fs::path& where) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::mismatch, where.string(), what,
                "give a model and what was made from it by fine-tuning or merging");
  };
  for (const auto& [component, index] : base.indices) {
    const auto other = tuned.indices.find(component);
    if (other == tuned.indices.end()) fail("has no \"" + component + "\", which the base has");
    for (const auto& [name, tensor] : index.tensors) {
      const auto found = other->second.tensors.find(name);
      const std::string full = full_name(component, name);
      if (found == other->second.tensors.end()) fail("lacks tensor \"" + full + "\" of the base");
      if (found->second.sizes() != tensor.sizes())
        fail("tensor \"" + full + "\" has shape " + c10::str(found->second.sizes()) + ", " +
             c10::str(tensor.sizes()) + " in the base");
    }
    for (const auto& [name, tensor] : other->second.tensors)
      if (!index.tensors.contains(name))
        fail("has tensor \"" + full_name(component, name) + "\", which the base lacks");
  }
}

/// The type of most of a model's weights.
at::ScalarType type_of(const nn::ModuleIndex& index) {
  std::map<at::ScalarType, std::int64_t> numbers;
  for (const auto& [name, tensor] : index.tensors)
    if (tensor.dim() >= 2) numbers[tensor.scalar_type()] += tensor.numel();
  const auto most =
      std::ranges::max_element(numbers, {}, [](const auto& one) { return one.second; });
  return most == numbers.end() ? at::kFloat : most->first;
}

/// How the tensors of two models differ, one by one, and all together.
class TensorDifferences {
 public:
  TensorDifferences(const OpenedModel& base, const OpenedModel& tuned) {
    for (const auto& [component, index] : base.indices) {
      const nn::ModuleIndex& other = tuned.indices.at(component);
      const at::ScalarType type_a = type_of(index), type_b = type_of(other);
      for (const auto& [name, tensor] : index.tensors)
        add(full_name(component, name), tensor, type_a, other.tensors.at(name), type_b);
    }
  }

  /// Nothing for a tensor that there is not.
  StoredDifference at(const std::string& name) const {
    const auto found = all_.find(name);
    return found == all_.end() ? StoredDifference{} : found->second;
  }

  const std::vector<std::string>& changed() const { return changed_; }  ///< by more than rounding
  double squared() const { return squared_; }                           ///< of those
  std::size_t rounded() const { return rounded_; }  ///< tensors of rounding alone
  std::string types() const { return join(std::vector<std::string>(types_.begin(), types_.end())); }

 private:
  /// `type_a` and `type_b` are those of the models' matrices: opening widens vectors to fp32.
  void add(const std::string& name, const at::Tensor& a, at::ScalarType type_a, const at::Tensor& b,
           at::ScalarType type_b) {
    const auto type = [](const at::Tensor& tensor, at::ScalarType of_model) {
      return tensor.dim() >= 2 ? tensor.scalar_type() : stored_type(tensor, of_model);
    };
    const at::ScalarType own_a = type(a, type_a), own_b = type(b, type_b);
    const StoredDifference& one =
        all_.emplace(name, compare_stored(a, own_a, b, own_b, name)).first->second;
    if (one.squared == 0.0) return;
    if (own_a != own_b) types_.insert(storage_name(own_a) + " against " + storage_name(own_b));
    if (one.rounding_alone) {
      ++rounded_;
      return;
    }
    changed_.push_back(name);
    squared_ += one.squared;
  }

  std::map<std::string, StoredDifference> all_;
  std::vector<std::string> changed_;
  std::set<std::string> types_;
  double squared_ = 0.0;
  std::size_t rounded_ = 0;
};

[[noreturn]] void nothing_differs(const ExtractSource& source,
                                  const TensorDifferences& differences) {
  const std::vector<std::string>& changed = differences.changed();
  if (changed.empty())
    throw Error(ErrorCode::invalid_argument, source.tuned.string(),
                differences.rounded() == 0 ? "has the same weights as " + source.base.string()
                                           : "differs from " + source.base.string() +
                                                 " by rounding alone (" + differences.types() + ")",
                "give a model and what was made from it by fine-tuning or merging");
  throw Error(
      ErrorCode::invalid_argument, source.tuned.string(),
      "differs from " + source.base.string() + " in none of the selected layers" +
          (differences.rounded() == 0 ? ""
                                      : " by more than rounding (" + differences.types() + ")"),
      std::to_string(changed.size()) + " other tensors differ, such as " + changed.front() +
          "; select more with `targets` or `include`");
}

/// Sorts the selected layers by how they differ.
ModelDifference select_layers(const ExtractSource& source, const adapt::TargetOptions& targets,
                              const OpenedModel& base, const OpenedModel& tuned) {
  const TensorDifferences differences(base, tuned);
  ModelDifference difference;
  double selected = 0.0, rounding = 0.0;
  for (const adapt::Target& target : adapt::select_targets(base.components(), targets)) {
    const nn::Layer& layer = *tuned.indices.at(target.component).layers.at(target.name);
    const std::string name = target.full_name();
    const StoredDifference one = differences.at(name + ".weight");
    if (one.squared == 0.0 || one.rounding_alone) {
      (one.rounding_alone ? difference.rounded : difference.unchanged).push_back(name);
      continue;
    }
    const bool bias_is_rounded = differences.at(name + ".bias").rounding_alone;
    difference.layers.push_back({target, layer.weight(),
                                 bias_is_rounded ? at::Tensor() : layer.bias(),
                                 std::sqrt(one.squared)});
    selected += one.squared;
    rounding += one.rounding;
  }
  if (difference.layers.empty()) nothing_differs(source, differences);
  difference.types = differences.types();
  difference.share = selected / differences.squared();
  difference.rounding = rounding / selected;
  return difference;
}

/// The weights of a network that is not a text-to-image model, or null.
std::shared_ptr<const nn::FileStore> open_other(const fs::path& path) {
  auto file = open_network_file(path);
  return file && find_family(file->files().front()) != nullptr ? nullptr : file;
}

ModelDifference difference_of(const ExtractSource& source) {
  const auto base_file = open_other(source.base), tuned_file = open_other(source.tuned);
  const bool other = base_file != nullptr;
  if (other != (tuned_file != nullptr))
    throw Error(ErrorCode::mismatch, source.tuned.string(),
                other ? "is not a file like the base" : "is not a model, but the base is",
                "give two models, or two .safetensors files with the same tensors");
  OpenedModel base = other ? open_tensors(base_file, source.component)
                           : open_model(source.base, source.files, true);
  OpenedModel tuned = other ? open_tensors(tuned_file, source.component)
                            : open_model(source.tuned, source.files, false);
  if (other) match_names(base.indices.at(source.component), tuned.indices.at(source.component));
  check_same_shapes(base, tuned, source.tuned);
  adapt::TargetOptions targets = source.targets;
  if (other && targets.presets.empty() && targets.include.empty()) targets.include = {"*"};
  ModelDifference difference = select_layers(source, targets, base, tuned);
  difference.base_hash = base.hash;
  difference.base_kind = base.kind;
  difference.tuned_name = tuned.name;
  return difference;
}

void add_to(adapt::FitResult& total, const adapt::FitResult& one) {
  total.parameters += one.parameters;
  total.steps += one.steps;
  total.seconds += one.seconds;
  total.closed_form = total.closed_form && one.closed_form;
  total.converged = total.converged && one.converged;
}

}  // namespace

std::vector<adapt::Target> ModelDifference::targets() const {
  std::vector<adapt::Target> targets;
  for (const LayerDifference& layer : layers) targets.push_back(layer.target);
  return targets;
}

ModelDifference compare_models(const ExtractSource& source) {
  return nn::with_ringlet_errors(source.tuned.string(), [&] {
    const at::NoGradGuard no_grad;
    return difference_of(source);
  });
}

Extraction extract(const ModelDifference& difference, std::span<const adapt::Method> methods,
                   const adapt::FactorTable& factors, const adapt::FitOptions& options,
                   const LayerObserver& observer) {
  std::map<std::string, const LayerDifference*> by_name;
  std::vector<adapt::Assignment> assignments;
  for (std::size_t i = 0; i < difference.layers.size(); ++i) {
    const LayerDifference& layer = difference.layers[i];
    by_name[layer.target.full_name()] = &layer;
    assignments.push_back({layer.target, methods[i]});
  }
  Extraction extraction{
      adapt::AdapterSet::create(assignments, factors, Random(options.seed)), {}, {}};
  adapt::FitResult& total = extraction.total;
  total.closed_form = total.converged = true;
  double missed = 0.0, all = 0.0;
  for (const adapt::AdapterSet::Entry& entry : extraction.set.entries()) {
    const std::string name = entry.target.full_name();
    const LayerDifference& layer = *by_name.at(name);
    const at::Tensor& w0 = entry.target.layer->weight();
    LayerFit fitted{name, entry.adapter->spec(), 0.0, {}};
    fitted.change = layer.norm / w0.to(at::kFloat).norm().item<double>();
    try {
      fitted.result =
          adapt::fit(*entry.adapter, *entry.target.layer, layer.weight, options, layer.bias);
    } catch (const Error& error) {
      throw Error(error.code(), name, error.message(), error.hint());
    }
    add_to(total, fitted.result);
    const double own = fitted.result.relative_error * layer.norm;
    missed += own * own;
    all += layer.norm * layer.norm;
    extraction.layers.push_back(std::move(fitted));
    if (observer && !observer(name))
      throw Error(ErrorCode::cancelled, "extract", "stopped", "nothing was written");
  }
  total.relative_error = std::sqrt(missed / all);
  return extraction;
}

std::vector<adapt::Method> same_method(const ModelDifference& difference,
                                       const adapt::Method& method) {
  return {difference.layers.size(), method};
}

std::vector<adapt::Method> methods_for_error(const ModelDifference& difference,
                                             const adapt::Method& method, double error) {
  const bool lora = method.parts.size() == 1 && method.parts.front().name == "lora" &&
                    !method.parts.front().yes("tucker");
  if (!lora)
    throw Error(ErrorCode::invalid_argument, Field("max_error"),
                "chooses ranks for lora only, not for " + adapt::method_text(method),
                "give `method=lora`, or a size in the method, or `budget`");
  std::vector<adapt::Method> methods;
  for (const LayerDifference& layer : difference.layers) {
    const at::Tensor change =
        layer.weight.to(at::kFloat) - layer.target.layer->weight().to(at::kFloat);
    adapt::Method own = method;
    own.parts.front() =
        adapt::with_size(own.parts.front(), "rank", adapt::rank_for_error(change, error));
    methods.push_back(std::move(own));
  }
  return methods;
}

void save_extraction(const fs::path& path, const Extraction& extraction,
                     const ModelDifference& difference, at::ScalarType storage) {
  const Json training = {{"extracted from", difference.tuned_name},
                         {"relative error", extraction.total.relative_error},
                         {"ringlet", kVersion}};
  adapt::save_adapter(path, extraction.set,
                      {.base_hash = difference.base_hash,
                       .base_kind = difference.base_kind,
                       .training = training.dump(-1, ' ', false, Json::error_handler_t::replace),
                       .extra = {},
                       .storage = storage});
}

FitComparison compare_methods(const ModelDifference& difference,
                              std::span<const NamedMethod> methods,
                              std::vector<std::int64_t> budgets, const adapt::FactorTable& factors,
                              const adapt::FitOptions& options, const LayerObserver& observer) {
  std::ranges::sort(budgets);
  const std::vector<adapt::Target> targets = difference.targets();
  FitComparison comparison;
  for (const auto& [name, method] : methods) {
    adapt::Method last;
    for (const std::int64_t budget : budgets) {
      adapt::BudgetedMethod budgeted;
      try {
        budgeted = adapt::fit_budget(method, budget, targets, factors);
      } catch (const Error& error) {
        comparison.left_out.push_back(name + " at " + std::to_string(budget) + ": " +
                                      error.message());
        continue;
      }
      if (std::exchange(last, budgeted.method) == budgeted.method) continue;
      const Extraction found =
          extract(difference, same_method(difference, budgeted.method), factors, options, observer);
      ComparedFit fit{
          name, adapt::method_text(budgeted.method), budget, found.total, 0, found.layers.size()};
      for (const LayerFit& layer : found.layers) fit.converged += layer.result.converged ? 1 : 0;
      comparison.fits.push_back(std::move(fit));
    }
  }
  return comparison;
}

void write_comparison(const fs::path& csv, const FitComparison& comparison) {
  std::string text =
      "curve,method,budget,parameters,relative_error,steps,seconds,converged_layers,layers\n";
  for (const ComparedFit& fit : comparison.fits) {
    char numbers[160];
    std::snprintf(numbers, sizeof numbers, ",%lld,%lld,%.6f,%lld,%.2f,%zu,%zu\n",
                  static_cast<long long>(fit.budget), static_cast<long long>(fit.total.parameters),
                  fit.total.relative_error, static_cast<long long>(fit.total.steps),
                  fit.total.seconds, fit.converged, fit.layers);
    text += "\"" + fit.curve + "\",\"" + fit.method + "\"" + numbers;
  }
  write_file_atomically(csv, text);
}

}  // namespace ringlet::pipeline
