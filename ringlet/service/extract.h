// The difference of two models as an adapter, or several methods compared on it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include <c10/core/ScalarType.h>

#include "ringlet/adapt/fit/fit.h"
#include "ringlet/core/json.h"
#include "ringlet/core/option.h"
#include "ringlet/pipeline/extract.h"

namespace ringlet::service {

struct ExtractRequest {
  pipeline::ExtractSource source;
  std::filesystem::path out;        ///< an adapter's file; a folder when methods are compared
  std::string method;               ///< "" = lora(rank=8)
  std::string budget;               ///< of parameters, "0.4M"; "" = the method as it is
  std::optional<double> max_error;  ///< of lora: each layer's smallest rank within this error
  std::string compare;              ///< methods between commas; "" = one adapter
  std::string budgets;              ///< to compare at, between commas
  adapt::FitOptions fit;
  c10::ScalarType save_precision = c10::kFloat;

  bool compares() const { return !compare.empty(); }
};

/// All of it, as options.
void describe(OptionList& list, ExtractRequest& request);

/// Throws Error(invalid_argument) for values out of range and for what cannot be asked for
/// together. Looks into no file.
void check(const ExtractRequest& request);

/// The options' values by field. Throws Error(invalid_argument) for unknown fields, with the
/// nearest name, for values of another type, and as check.
ExtractRequest extract_request_from_json(const Json& json);
Json to_json(const ExtractRequest& request);

/// How a program follows it. Any of them may be empty.
struct ExtractObserver {
  std::function<void(std::size_t layers)> begin;  ///< the models are read; so many fits follow
  pipeline::LayerObserver layer;                  ///< false ends it with Error(cancelled)
  std::function<void(const std::string& message)> log;
};

struct ExtractResult {
  pipeline::ModelDifference difference;
  std::optional<pipeline::Extraction> adapter;  ///< of one method
  std::optional<pipeline::FitComparison> comparison;
};

/// Writes the adapter, or the comparison's table and plot. Throws as check, Error(not_found) for an
/// adapter's folder that does not exist, Error(invalid_argument) when no method fits into any
/// budget, and as the functions of pipeline/extract.h.
ExtractResult extract(const ExtractRequest& request, const ExtractObserver& observer = {});

/// What a comparison writes into its folder.
std::filesystem::path comparison_table(const ExtractRequest& request);
std::filesystem::path comparison_plot(const ExtractRequest& request);

/// As to_json of the extraction or the comparison, with the files that were written.
Json to_json(const ExtractRequest& request, const ExtractResult& result);

}  // namespace ringlet::service
