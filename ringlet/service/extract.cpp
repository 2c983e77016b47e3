#include "ringlet/service/extract.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/budget.h"
#include "ringlet/core/error.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/extraction_report.h"
#include "ringlet/service/request_json.h"
#include "ringlet/service/split_list.h"

namespace ringlet::service {
namespace {

namespace fs = std::filesystem;

void refuse(const Field& option, bool given, const std::string& why, const std::string& hint) {
  if (given) throw Error(ErrorCode::invalid_argument, option, why, hint);
}

std::string method_of(const ExtractRequest& request) {
  return request.method.empty() ? "lora(rank=8)" : request.method;
}

std::vector<pipeline::NamedMethod> methods_of(const ExtractRequest& request) {
  std::vector<pipeline::NamedMethod> methods;
  if (!request.compares()) return methods;
  for (const std::string& text : split_list(request.compare, Field("compare")))
    methods.push_back({text, adapt::parse_method(text)});
  return methods;
}

std::vector<std::int64_t> budgets_of(const ExtractRequest& request) {
  std::vector<std::int64_t> budgets;
  if (!request.compares() || request.budgets.empty()) return budgets;
  for (const std::string& text : split_list(request.budgets, Field("budgets")))
    budgets.push_back(adapt::parse_budget(text));
  return budgets;
}

void check_output(const ExtractRequest& o) {
  const fs::path& out = o.out;
  if (o.compare.empty()) {
    refuse(Field("out"), out.extension() != ".safetensors",
           "\"" + out.string() + "\" is not a .safetensors file",
           "adapters are written as one .safetensors file");
    const fs::path folder = out.has_parent_path() ? out.parent_path() : ".";
    if (!fs::is_directory(folder))
      throw Error(ErrorCode::not_found, folder.string(), "the folder does not exist",
                  "make it first, or choose another `out`");
    return;
  }
  make_folder(out, "choose another `out`");
}

void say(const ExtractObserver& observer, const std::string& message) {
  if (observer.log) observer.log(message);
}

/// What the numbers are about.
void report(const ExtractObserver& observer, const pipeline::ModelDifference& difference) {
  char text[160];
  std::snprintf(
      text, sizeof text,
      "%zu of %zu selected layers differ; they make up %.1f %% of the squared difference of "
      "all weights",
      difference.layers.size(),
      difference.layers.size() + difference.unchanged.size() + difference.rounded.size(),
      100.0 * difference.share);
  say(observer, text);
  if (!difference.rounded.empty())
    say(observer, std::to_string(difference.rounded.size()) + " more differ by rounding alone (" +
                      difference.types + ") and are skipped");
  if (difference.rounding == 0.0) return;
  std::snprintf(text, sizeof text,
                "rounding (%s) is about %.2g %% of the squared difference that is fitted",
                difference.types.c_str(), 100.0 * difference.rounding);
  say(observer, text);
}

adapt::Method chosen_method(const ExtractRequest& o, const ExtractObserver& observer,
                            const pipeline::ModelDifference& difference) {
  if (o.budget.empty()) return adapt::parse_method(method_of(o));
  const adapt::BudgetedMethod budgeted =
      adapt::fit_budget(adapt::parse_method(method_of(o)), adapt::parse_budget(o.budget),
                        difference.targets(), adapt::FactorTable());
  say(observer, "budget: " + adapt::method_text(budgeted.method) + ", " +
                    std::to_string(budgeted.parameters) + " parameters");
  return budgeted.method;
}

pipeline::LayerObserver layers_of(const ExtractObserver& observer, std::size_t total) {
  if (observer.begin) observer.begin(total);
  return observer.layer;
}

void extract_one(const ExtractRequest& o, const ExtractObserver& observer, ExtractResult& result) {
  const pipeline::ModelDifference& difference = result.difference;
  const adapt::Method method = chosen_method(o, observer, difference);
  const auto methods = o.max_error ? pipeline::methods_for_error(difference, method, *o.max_error)
                                   : pipeline::same_method(difference, method);
  result.adapter = pipeline::extract(difference, methods, adapt::FactorTable(), o.fit,
                                     layers_of(observer, methods.size()));
  pipeline::save_extraction(o.out, *result.adapter, difference, o.save_precision);
}

void compare(const ExtractRequest& o, const ExtractObserver& observer, ExtractResult& result) {
  const pipeline::ModelDifference& difference = result.difference;
  const auto methods = methods_of(o);
  const auto budgets = budgets_of(o);
  const auto layer =
      layers_of(observer, methods.size() * budgets.size() * difference.layers.size());
  result.comparison =
      pipeline::compare_methods(difference, methods, budgets, adapt::FactorTable(), o.fit, layer);
  for (const std::string& point : result.comparison->left_out) say(observer, "left out: " + point);
  if (result.comparison->fits.empty())
    throw Error(ErrorCode::invalid_argument, Field("budgets"), "no method fits into any of them",
                result.comparison->left_out.front());
  pipeline::write_comparison(comparison_table(o), *result.comparison);
  io::write_png(comparison_plot(o), draw_comparison(*result.comparison));
}

}  // namespace

void describe(OptionList& list, ExtractRequest& o) {
  list.add("base", o.source.base, "Base model: folder, checkpoint, or .safetensors file")
      .required();
  list.add("tuned", o.source.tuned, "Fine-tuned or merged model").required();
  list.add("out", o.out, "Adapter file, or folder for `compare`").required();
  list.add("method", o.method,
           "Parts such as lora(rank=8), trm(rank=2), tr(rank=6) joined by +, or an alias")
      .or_else("lora(rank=8)");
  list.add("budget", o.budget,
           "Parameter budget, for example 0.4M: sizes the residual, or without one the transform, "
           "to fit");
  list.add("max_error", o.max_error,
           "For lora: the smallest rank of each layer within this relative error")
      .within(Range::inside(0, 1));
  list.add(
      "compare", o.compare,
      "Several methods, separated by commas: error against parameters as table, CSV and picture");
  list.add("budgets", o.budgets, "Parameter budgets to compare at, for example 0.1M,0.2M,0.4M");
  list.add("targets", o.source.targets.presets,
           "Layers: attention, attention+ff, all-linear, all, text-encoder, double-blocks, "
           "single-blocks; may be given several times")
      .or_else("attention; all of other files");
  list.add("include", o.source.targets.include,
           "More layers, by glob over \"unet.down_blocks…\" or re:REGEX");
  list.add("exclude", o.source.targets.exclude, "Fewer layers, by glob or re:REGEX");
  list.add("component", o.source.component,
           "Component of the layers of a .safetensors file that is not a model, such as unet");
  list.add("steps", o.fit.steps, "Optimiser steps per layer, at most").within(Range::at_least(1));
  list.add("tolerance", o.fit.tolerance,
           "A fit has converged when 50 steps (10 of trm, 10 sweeps) lower its squared error by a "
           "smaller share")
      .within(Range::share());
  list.add("seed", o.fit.seed, "Seed of the adapters' start");
  list.add("save_precision", choice("save_precision", o.save_precision, nn::kPrecisionNames),
           "Type of the numbers that are saved");
  pipeline::describe(list, o.source.files);
}

void check(const ExtractRequest& o) {
  ExtractRequest described = o;
  OptionList list;
  describe(list, described);
  list.check();
  const bool compares = o.compares();
  refuse(Field("compare"), compares && (!o.method.empty() || !o.budget.empty() || o.max_error),
         "replaces `method`, `budget` and `max_error`", "give only one of them");
  refuse(Field("budgets"), compares && o.budgets.empty(), "is needed with `compare`",
         "for example `budgets=0.1M,0.2M,0.4M`");
  refuse(Field("budgets"), !compares && !o.budgets.empty(), "goes with `compare`",
         "for one adapter give `budget`");
  refuse(Field("max_error"), o.max_error && !o.budget.empty(), "and `budget` exclude each other",
         "give one of them");
  refuse(Field("component"),
         o.source.component.empty() || o.source.component.find('.') != std::string::npos,
         "must be a name without dots", "for example `component=unet`");
  if (!compares) adapt::parse_method(method_of(o));  // before the models are read
  methods_of(o);
  budgets_of(o);
  if (!o.budget.empty()) adapt::parse_budget(o.budget);
}

fs::path comparison_table(const ExtractRequest& request) { return request.out / "compare.csv"; }

fs::path comparison_plot(const ExtractRequest& request) { return request.out / "compare.png"; }

ExtractResult extract(const ExtractRequest& request, const ExtractObserver& observer) {
  return nn::with_ringlet_errors("extract", [&] {
    check(request);
    check_output(request);
    ExtractResult result{pipeline::compare_models(request.source), {}, {}};
    report(observer, result.difference);
    if (request.compares())
      compare(request, observer, result);
    else
      extract_one(request, observer, result);
    return result;
  });
}

Json to_json(const ExtractRequest& request, const ExtractResult& result) {
  if (result.adapter) {
    Json json = to_json(result.difference, *result.adapter);
    json["out"] = request.out.string();
    return json;
  }
  Json json = to_json(result.difference, result.comparison.value());
  json["csv"] = comparison_table(request).string();
  json["plot"] = comparison_plot(request).string();
  return json;
}

ExtractRequest extract_request_from_json(const Json& json) {
  ExtractRequest request;
  OptionList list;
  describe(list, request);
  JsonFields fields(json);
  read_options(fields, list);
  fields.finish();
  check(request);
  return request;
}

Json to_json(const ExtractRequest& request) {
  ExtractRequest described = request;
  OptionList list;
  describe(list, described);
  return set_values(list);
}

}  // namespace ringlet::service
