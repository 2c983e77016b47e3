#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "adapter_options.h"
#include "options.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/convert.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct ConvertOptions {
  CommonOptions common;
  AdapterOptions adapters;
  service::ConvertRequest request;
};

/// What there is to say about an approximation by low ranks.
nlohmann::json report(const adapt::Approximation& approximation, bool json) {
  const std::vector<adapt::LayerError>& layers = approximation.layers;
  nlohmann::json all = {{"relative_error", approximation.relative},
                        {"layers", nlohmann::json::array()}};
  for (const adapt::LayerError& layer : layers)
    all["layers"].push_back(
        {{"name", layer.name}, {"rank", layer.rank}, {"relative_error", layer.relative}});
  if (json) return all;
  constexpr std::size_t kShown = 10;
  std::printf("%-70s %5s %10s\n", "layer (worst first)", "rank", "error");
  for (std::size_t i = 0; i < std::min(kShown, layers.size()); ++i)
    std::printf("%-70s %5lld %9.4f%%\n", layers[i].name.c_str(),
                static_cast<long long>(layers[i].rank), 100.0 * layers[i].relative);
  if (layers.size() > kShown) std::printf("… and %zu more\n", layers.size() - kShown);
  std::printf("all %zu layers together: %.4f%% of the change is lost\n", layers.size(),
              100.0 * approximation.relative);
  return all;
}

int convert(ConvertOptions& o) {
  o.request.adapters = parse_adapters(o.adapters);
  const std::string out = o.request.out.string();
  nlohmann::json result = {{"out", out}, {"to", formats::name_of(o.request.format)}};
  if (const auto approximation = service::convert(o.request))
    result["approximation"] = report(*approximation, o.common.json);
  print_made(o.common.json, result, out);
  return 0;
}

}  // namespace

int cmd_convert(int argc, char** argv) {
  ConvertOptions options;
  OptionList list;
  CLI::App app(
      "Convert an adapter to another program's file format, or to another form.\nExamples:\n  "
      "ringlet convert --model MODEL --adapter runs/dog/adapter.safetensors --to peft --out "
      "dog-peft\n  "
      "ringlet convert --model MODEL --adapter a.safetensors --to kohya --as lora --rank 16 --out "
      "a-kohya.safetensors",
      "convert");
  service::describe(list, options.request);
  options.adapters.add_to(list);
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  return nn::with_ringlet_errors("convert", [&] { return convert(options); });
}

}  // namespace ringlet::app
