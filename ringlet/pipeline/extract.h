// Adapters from two models: what a fine-tuned model has learnt, fitted by any method.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/fit/fit.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/adapt/set/targets.h"
#include "ringlet/pipeline/model_files.h"

namespace ringlet::pipeline {

struct ExtractSource {
  std::filesystem::path base, tuned;  ///< two models, or two other .safetensors files
  ModelFileOptions files;
  adapt::TargetOptions targets;
  std::string component = "model";  ///< what the layers of other files are counted to
};

/// A layer that the models have differently.
struct LayerDifference {
  adapt::Target target;  ///< the base's layer
  at::Tensor weight;     ///< the tuned model's
  at::Tensor bias;       ///< likewise; undefined when there is none, or only rounding in it
  double norm = 0.0;     ///< of the difference of the weights
};

struct ModelDifference {
  std::vector<LayerDifference> layers;  ///< the selected ones that differ
  std::vector<std::string> unchanged;   ///< the selected ones that do not
  /// The selected ones that differ by the rounding of their storage types alone. They hold nothing
  /// that was learnt, and get no adapter.
  std::vector<std::string> rounded;
  std::string types;      ///< "bf16 against fp32": which types differ, the base's first; or ""
  double share = 0.0;     ///< of the squared difference of all weights that the layers hold
  double rounding = 0.0;  ///< of the layers' own squared difference that rounding is expected to be
  std::string base_hash;  ///< "" for other files
  std::string base_kind = {};
  std::string tuned_name;

  std::vector<adapt::Target> targets() const;
};

/// Compares two models layer by layer. A .safetensors file that is not a model is read by its
/// tensor names: matrices and kernels named "….weight" are its layers, all of them selected unless
/// the targets say otherwise. Where the models are stored in different types, what rounding to both
/// may change is not counted as a difference (compare_stored). Throws Error(mismatch) that names
/// the first tensor that one of the models lacks or has in another shape, Error(non_finite) that
/// names a tensor, Error(invalid_argument) when no selected layer differs, and as
/// open_text_to_image_model and select_targets.
ModelDifference compare_models(const ExtractSource& source);

/// Called after every layer; returning false stops with Error(cancelled).
using LayerObserver = std::function<bool(const std::string& layer)>;

struct LayerFit {
  std::string name, method;
  double change = 0.0;  ///< |W* - W0| / |W0|
  adapt::FitResult result;
};

struct Extraction {
  adapt::AdapterSet set;
  std::vector<LayerFit> layers;  ///< in the set's order
  adapt::FitResult total;        ///< error over all layers together, sums of the rest
};

/// Fits an adapter to every layer of the difference; `methods` has one for each of its layers.
/// Throws as AdapterSet::create and fit.
Extraction extract(const ModelDifference& difference, std::span<const adapt::Method> methods,
                   const adapt::FactorTable& factors, const adapt::FitOptions& options,
                   const LayerObserver& observer = {});

/// One method for every layer.
std::vector<adapt::Method> same_method(const ModelDifference& difference,
                                       const adapt::Method& method);

/// For every layer the smallest rank of `method`, which must be lora alone, that comes within
/// `error` of its difference. Throws Error(invalid_argument) for another method.
std::vector<adapt::Method> methods_for_error(const ModelDifference& difference,
                                             const adapt::Method& method, double error);

/// Writes the adapter as training does. Throws as save_adapter.
void save_extraction(const std::filesystem::path& path, const Extraction& extraction,
                     const ModelDifference& difference, at::ScalarType storage);

/// A point of a method's curve: what it makes of a budget.
struct ComparedFit {
  std::string curve;   ///< the method as it was asked for
  std::string method;  ///< with the sizes that the budget has bought
  std::int64_t budget = 0;
  adapt::FitResult total;
  std::size_t converged = 0, layers = 0;
};

struct FitComparison {
  std::vector<ComparedFit> fits;      ///< method by method, in rising order of the budgets
  std::vector<std::string> left_out;  ///< points that do not exist, and why
};

/// A method and what its curve is called.
struct NamedMethod {
  std::string name;
  adapt::Method method;
};

/// Fits every method at every budget, as adapt::fit_budget spends it; a budget that buys a
/// method nothing new gives no point. Throws as extract.
FitComparison compare_methods(const ModelDifference& difference,
                              std::span<const NamedMethod> methods,
                              std::vector<std::int64_t> budgets, const adapt::FactorTable& factors,
                              const adapt::FitOptions& options, const LayerObserver& observer = {});

/// "curve,method,budget,parameters,relative_error,steps,seconds,converged_layers,layers" and a line
/// per fit. Throws as write_file_atomically.
void write_comparison(const std::filesystem::path& csv, const FitComparison& comparison);

}  // namespace ringlet::pipeline
