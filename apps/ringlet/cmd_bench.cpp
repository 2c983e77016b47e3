#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "installed_model.h"
#include "options.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/benchmark.h"
#include "ringlet/service/benchmark_report.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct BenchOptions {
  CommonOptions common;
  service::BenchmarkRequest request;
};

/// The first column to the left, numbers to the right.
void print(const service::TextTable& table) {
  std::vector<std::size_t> widths(table.front().size());
  for (const auto& row : table)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  for (const auto& row : table) {
    std::printf("%-*s", static_cast<int>(widths[0]), row[0].c_str());
    for (std::size_t i = 1; i < row.size(); ++i)
      std::printf("  %*s", static_cast<int>(widths[i]), row[i].c_str());
    std::printf("\n");
  }
}

void print(const service::BenchmarkRequest& request, const service::BenchmarkResult& result) {
  constexpr double kGiga = 1e9;
  std::printf("%s, %s, %lld at a time, %s on %s\n", result.model.c_str(),
              result.size.text().c_str(), static_cast<long long>(request.batch_size),
              nn::precision_name(request.load.precision).c_str(),
              request.load.device.str().c_str());
  std::printf("products: fp32 %.0f, bf16 %.0f GFLOP/s; memory: %.1f GB/s\n\n",
              result.speed.fp32 / kGiga, result.speed.bf16 / kGiga, result.speed.memory / kGiga);
  print(service::pass_table(request, result));
  std::printf("\nmilliseconds by kind of layer, of one pass more\n");
  print(service::kind_table(result));
}

int bench(BenchOptions& o) {
  service::BenchmarkRequest& request = o.request;
  request.model = installed_model(request.model.string());
  request.load.device = o.common.select_device();
  request.load.precision = o.common.select_precision(request.load.device, nn::Work::training);
  std::optional<Progress> progress;
  const service::BenchmarkResult result =
      service::benchmark(request, [&](const std::string& what, std::size_t total) {
        if (!progress) progress.emplace("measuring", total, o.common.quiet || o.common.json);
        progress->advance(what);
        return !interrupted();
      });
  progress.reset();
  if (o.common.json)
    print_json(service::to_json(request, result));
  else
    print(request, result);
  if (!o.common.json && !request.out.empty())
    std::printf("\n%s\n", service::benchmark_page(request).c_str());
  return 0;
}

}  // namespace

int cmd_bench(int argc, char** argv) {
  BenchOptions options;
  OptionList list;
  CLI::App app(
      "Measure this machine: a forward pass and training steps of several methods, their time by "
      "kind of layer, memory, and share of the processor's speed.\nExample:\n  ringlet bench "
      "--model starter --methods \"lora(rank=4),trm(rank=2)+tr(rank=6)\" --out bench",
      "bench");
  service::describe(list, options.request);
  options.common.add_to(list);
  options.common.add_arithmetic_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  catch_interrupts();
  return nn::with_ringlet_errors("bench", [&] { return bench(options); });
}

}  // namespace ringlet::app
