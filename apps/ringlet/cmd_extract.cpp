#include <algorithm>
#include <cstdio>
#include <functional>
#include <optional>

#include <nlohmann/json.hpp>

#include "options.h"
#include "ringlet/core/log.h"
#include "ringlet/core/text.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/extract.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct ExtractOptions {
  CommonOptions common;
  service::ExtractRequest request;
  std::size_t rows = 20;
};

void print_row(const std::string& name, const std::string& change, const adapt::FitResult& result) {
  std::printf("  %-68s %7s %8.4f %11lld %6lld %8.2f%s\n", printable(name).c_str(), change.c_str(),
              result.relative_error, static_cast<long long>(result.parameters),
              static_cast<long long>(result.steps), result.seconds,
              result.converged ? "" : "  not converged");
}

void print_layers(const pipeline::Extraction& found, std::size_t rows) {
  std::vector<pipeline::LayerFit> layers = found.layers;
  std::ranges::stable_sort(layers, std::ranges::greater(), [](const pipeline::LayerFit& layer) {
    return layer.result.relative_error;
  });
  const std::size_t shown = rows == 0 ? layers.size() : std::min(rows, layers.size());
  std::printf("  %-68s %7s %8s %11s %6s %8s\n", "layer, worst first", "change", "error",
              "parameters", "steps", "seconds");
  for (std::size_t i = 0; i < shown; ++i) {
    char change[16];
    std::snprintf(change, sizeof change, "%.4f", layers[i].change);
    print_row(layers[i].name, change, layers[i].result);
  }
  if (shown < layers.size())
    std::printf("  … %zu more (--layers 0 shows all)\n", layers.size() - shown);
  print_row("total of " + std::to_string(layers.size()) + " layers", "", found.total);
}

void print_comparison(const pipeline::FitComparison& comparison) {
  std::printf("  %-52s %11s %8s %8s %10s\n", "method", "parameters", "error", "seconds",
              "converged");
  for (const pipeline::ComparedFit& fit : comparison.fits)
    std::printf("  %-52s %11lld %8.4f %8.2f %5zu of %zu\n", printable(fit.method).c_str(),
                static_cast<long long>(fit.total.parameters), fit.total.relative_error,
                fit.total.seconds, fit.converged, fit.layers);
}

int extract_run(const ExtractOptions& o) {
  std::optional<Progress> progress;
  const auto begin = [&](std::size_t layers) {
    progress.emplace("fitting", layers, o.common.quiet || o.common.json);
  };
  const auto layer = [&](const std::string& name) {
    progress->advance(o.request.compares() ? name : "");
    return !interrupted();
  };
  const auto say = [&](const std::string& message) {
    progress.reset();  // what is said after the fits would stand in its line
    if (!o.common.json) log(LogLevel::info, message);  // the JSON has it all
  };
  const service::ExtractResult result =
      service::extract(o.request, {.begin = begin, .layer = layer, .log = say});
  progress.reset();
  if (o.common.json) {
    print_json(service::to_json(o.request, result));
  } else if (result.adapter) {
    print_layers(*result.adapter, o.rows);
    std::printf("%s\n", o.request.out.c_str());
  } else {
    print_comparison(*result.comparison);
    std::printf("%s\n%s\n", service::comparison_table(o.request).c_str(),
                service::comparison_plot(o.request).c_str());
  }
  return 0;
}

}  // namespace

int cmd_extract(int argc, char** argv) {
  ExtractOptions options;
  OptionList list;
  CLI::App app(
      "Extract an adapter of any method from the difference of two models, and print how near it "
      "comes. Layers that differ only by the rounding of their storage types are skipped."
      "\nExamples:\n  ringlet extract --base MODEL --tuned FINE_TUNED --method \"lora(rank=8)\" "
      "--out adapter.safetensors\n  ringlet extract --base MODEL --tuned FINE_TUNED --compare "
      "lora,trm+lora,oft --budgets 0.1M,0.4M --out comparison",
      "extract");
  service::describe(list, options.request);
  list.add("layers", options.rows, "Layers to list, worst first; 0 = all");
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("extract", [&] { return extract_run(options); });
}

}  // namespace ringlet::app
