#include <algorithm>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "options.h"
#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/budget.h"
#include "ringlet/core/json.h"
#include "ringlet/core/log.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/text.h"
#include "ringlet/io/image.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/extract.h"
#include "ringlet/service/extraction_report.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;
struct ExtractOptions {
  CommonOptions common;
  pipeline::ExtractSource source;
  adapt::FitOptions fit;
  std::string out;
  std::string method, budget, compare, budgets;
  std::optional<double> max_error;
  at::ScalarType save_precision = at::kFloat;
  std::size_t rows = 20;
};

void add_options(OptionList& list, ExtractOptions& o) {
  list.add("base", o.source.base, "The model before: folder, checkpoint, or .safetensors file")
      .required();
  list.add("tuned", o.source.tuned, "The model after fine-tuning or merging").required();
  list.add("out", o.out, "Adapter file, or folder for --compare").required();
  list.add("method", o.method,
           "Parts such as lora(rank=8), trm(rank=2), tr(rank=6) joined by +, or an alias")
      .or_else("lora(rank=8)");
  list.add("budget", o.budget,
           "Parameters to spend, for example 0.4M: makes the residual, or without one the "
           "transform, as large as that allows");
  list.add("max_error", o.max_error,
           "For lora: the smallest rank of each layer within this relative error")
      .within(Range::inside(0, 1));
  list.add(
      "compare", o.compare,
      "Several methods, separated by commas: error against parameters as table, CSV and picture");
  list.add("budgets", o.budgets, "Parameters to compare at, for example 0.1M,0.2M,0.4M");
  list.add("targets", o.source.targets.presets,
           "Layers: attention, attention+ff, all-linear, all, text-encoder; may be given several "
           "times")
      .or_else("attention; all of other files");
  list.add("include", o.source.targets.include,
           "More layers, by glob over \"unet.down_blocks…\" or re:REGEX");
  list.add("exclude", o.source.targets.exclude, "Fewer layers, by glob or re:REGEX");
  list.add("component", o.source.component,
           "What the layers of a .safetensors file that is no model belong to, such as unet");
  list.add("steps", o.fit.steps, "Optimiser steps per layer, at most").within(Range::at_least(1));
  list.add("tolerance", o.fit.tolerance,
           "A fit has converged when 50 steps (10 of trm, 10 sweeps) lower its squared error by a "
           "smaller share")
      .within(Range::share());
  list.add("seed", o.fit.seed, "Seed of the adapters' start");
  list.add("layers", o.rows, "Layers to list, worst first; 0 = all");
  list.add("save_precision", choice("save_precision", o.save_precision, nn::kPrecisionNames),
           "Type of the numbers that are saved");
  pipeline::describe(list, o.source.files);
}

/// The texts between commas that no bracket encloses.
std::vector<std::string> split_list(const std::string& text, const std::string& option) {
  std::vector<std::string> items(1);
  int depth = 0;
  for (const char c : text) {
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    if (c == ',' && depth == 0)
      items.emplace_back();
    else if (c != ' ')
      items.back() += c;
  }
  if (std::ranges::find(items, "") != items.end())
    throw Error(ErrorCode::invalid_argument, option, "\"" + text + "\" has an empty entry",
                "write a,b,c");
  return items;
}

void refuse(const char* option, bool given, const std::string& why, const std::string& hint) {
  if (given) throw Error(ErrorCode::invalid_argument, option, why, hint);
}

void check_output(const ExtractOptions& o) {
  const fs::path out = o.out;
  if (o.compare.empty()) {
    refuse("--out", out.extension() != ".safetensors", "\"" + o.out + "\" is no .safetensors file",
           "adapters are written as one .safetensors file");
    const fs::path folder = out.has_parent_path() ? out.parent_path() : ".";
    if (!fs::is_directory(folder))
      throw Error(ErrorCode::not_found, folder.string(), "the folder does not exist",
                  "make it first, or choose another --out");
    return;
  }
  make_folder(out, "choose another --out");
}

void check(ExtractOptions& o) {
  const bool compares = !o.compare.empty();
  refuse("--compare", compares && (!o.method.empty() || !o.budget.empty() || o.max_error),
         "stands in place of --method, --budget and --max-error", "give only one of them");
  refuse("--budgets", compares && o.budgets.empty(), "is needed with --compare",
         "for example --budgets 0.1M,0.2M,0.4M");
  refuse("--budgets", !compares && !o.budgets.empty(), "goes with --compare",
         "for one adapter give --budget");
  refuse("--max-error", o.max_error && !o.budget.empty(), "and --budget exclude each other",
         "give one of them");
  refuse("--component",
         o.source.component.empty() || o.source.component.find('.') != std::string::npos,
         "must be a name without dots", "for example --component unet");
  if (o.method.empty()) o.method = "lora(rank=8)";
  if (!compares) adapt::parse_method(o.method);  // before the models are read
  if (!o.budget.empty()) adapt::parse_budget(o.budget);
  check_output(o);
}

void print_row(const std::string& name, const std::string& change, const adapt::FitReport& report) {
  std::printf("  %-68s %7s %8.4f %11lld %6lld %8.2f%s\n", printable(name).c_str(), change.c_str(),
              report.relative_error, static_cast<long long>(report.parameters),
              static_cast<long long>(report.steps), report.seconds,
              report.converged ? "" : "  not converged");
}

void print_layers(const pipeline::Extraction& found, std::size_t rows) {
  std::vector<pipeline::LayerFit> layers = found.layers;
  std::ranges::stable_sort(layers, std::ranges::greater(), [](const pipeline::LayerFit& layer) {
    return layer.report.relative_error;
  });
  const std::size_t shown = rows == 0 ? layers.size() : std::min(rows, layers.size());
  std::printf("  %-68s %7s %8s %11s %6s %8s\n", "layer, worst first", "change", "error",
              "parameters", "steps", "seconds");
  for (std::size_t i = 0; i < shown; ++i) {
    char change[16];
    std::snprintf(change, sizeof change, "%.4f", layers[i].change);
    print_row(layers[i].name, change, layers[i].report);
  }
  if (shown < layers.size())
    std::printf("  … %zu more (--layers 0 shows all)\n", layers.size() - shown);
  print_row("total of " + std::to_string(layers.size()) + " layers", "", found.total);
}

/// Beside the table; the JSON has it all.
void say(const ExtractOptions& o, const std::string& message) {
  if (!o.common.json) log(LogLevel::info, message);
}

/// What the numbers are about.
void describe(const ExtractOptions& o, const pipeline::ModelDifference& difference) {
  char text[160];
  std::snprintf(text, sizeof text,
                "%zu of %zu selected layers differ; they hold %.1f %% of the squared difference of "
                "all weights",
                difference.layers.size(),
                difference.layers.size() + difference.unchanged.size() + difference.rounded.size(),
                100.0 * difference.share);
  say(o, text);
  if (!difference.rounded.empty())
    say(o, std::to_string(difference.rounded.size()) + " more differ by rounding alone (" +
               difference.types + ") and are left out");
  if (difference.rounding == 0.0) return;
  std::snprintf(text, sizeof text,
                "rounding (%s) is about %.2g %% of the squared difference that is fitted",
                difference.types.c_str(), 100.0 * difference.rounding);
  say(o, text);
}

adapt::Method chosen_method(const ExtractOptions& o, const pipeline::ModelDifference& difference) {
  if (o.budget.empty()) return adapt::parse_method(o.method);
  const adapt::BudgetPlan plan =
      adapt::fit_budget(adapt::parse_method(o.method), adapt::parse_budget(o.budget),
                        difference.targets(), adapt::FactorTable());
  say(o, "budget: " + adapt::method_text(plan.method) + ", " + std::to_string(plan.parameters) +
             " parameters");
  return plan.method;
}

int extract_one(const ExtractOptions& o, const pipeline::ModelDifference& difference) {
  const adapt::Method method = chosen_method(o, difference);
  const auto methods = o.max_error ? pipeline::methods_for_error(difference, method, *o.max_error)
                                   : pipeline::same_method(difference, method);
  pipeline::Extraction found = [&] {
    Progress progress("fitting", methods.size(), o.common.quiet || o.common.json);
    return pipeline::extract(difference, methods, adapt::FactorTable(), o.fit,
                             [&](const std::string&) {
                               progress.advance();
                               return !interrupted();
                             });
  }();
  pipeline::save_extraction(o.out, found, difference, o.save_precision);
  if (!o.common.json) {
    print_layers(found, o.rows);
    std::printf("%s\n", o.out.c_str());
    return 0;
  }
  Json result = service::to_json(difference, found);
  result["out"] = o.out;
  print_json(result);
  return 0;
}

void print_comparison(const pipeline::FitComparison& comparison) {
  std::printf("  %-52s %11s %8s %8s %10s\n", "method", "parameters", "error", "seconds",
              "converged");
  for (const pipeline::ComparedFit& fit : comparison.fits)
    std::printf("  %-52s %11lld %8.4f %8.2f %5zu of %zu\n", printable(fit.method).c_str(),
                static_cast<long long>(fit.total.parameters), fit.total.relative_error,
                fit.total.seconds, fit.converged, fit.layers);
}

int compare(const ExtractOptions& o, const pipeline::ModelDifference& difference,
            const std::vector<pipeline::NamedMethod>& methods,
            const std::vector<std::int64_t>& budgets) {
  const pipeline::FitComparison found = [&] {
    Progress progress("fitting", methods.size() * budgets.size() * difference.layers.size(),
                      o.common.quiet || o.common.json);
    return pipeline::compare_methods(difference, methods, budgets, adapt::FactorTable(), o.fit,
                                     [&](const std::string& layer) {
                                       progress.advance(layer);
                                       return !interrupted();
                                     });
  }();
  for (const std::string& point : found.left_out) say(o, "left out: " + point);
  if (found.fits.empty())
    throw Error(ErrorCode::invalid_argument, "--budgets", "no method fits into any of them",
                found.left_out.front());
  const fs::path csv = fs::path(o.out) / "compare.csv", png = fs::path(o.out) / "compare.png";
  pipeline::write_comparison(csv, found);
  io::write_png(png, service::draw_comparison(found));
  if (!o.common.json) {
    print_comparison(found);
    std::printf("%s\n%s\n", csv.c_str(), png.c_str());
    return 0;
  }
  Json result = service::to_json(difference, found);
  result.update({{"csv", csv.string()}, {"plot", png.string()}});
  print_json(result);
  return 0;
}

int extract_run(ExtractOptions& o) {
  std::vector<pipeline::NamedMethod> methods;
  std::vector<std::int64_t> budgets;
  if (!o.compare.empty()) {
    for (const std::string& text : split_list(o.compare, "--compare"))
      methods.push_back({text, adapt::parse_method(text)});
    if (!o.budgets.empty())
      for (const std::string& text : split_list(o.budgets, "--budgets"))
        budgets.push_back(adapt::parse_budget(text));
  }
  check(o);
  const pipeline::ModelDifference difference = pipeline::compare_models(o.source);
  describe(o, difference);
  return o.compare.empty() ? extract_one(o, difference) : compare(o, difference, methods, budgets);
}

}  // namespace

int cmd_extract(int argc, char** argv) {
  ExtractOptions options;
  OptionList list;
  CLI::App app(
      "Turn the difference of two models into an adapter of any method, and say how near it comes. "
      "Layers that differ by the rounding of their storage types alone are left out."
      "\nExamples:\n  ringlet extract --base MODEL --tuned FINE_TUNED --method \"lora(rank=8)\" "
      "--out adapter.safetensors\n  ringlet extract --base MODEL --tuned FINE_TUNED --compare "
      "lora,trm+lora,oft --budgets 0.1M,0.4M --out comparison",
      "extract");
  add_options(list, options);
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("extract", [&] { return extract_run(options); });
}

}  // namespace ringlet::app
