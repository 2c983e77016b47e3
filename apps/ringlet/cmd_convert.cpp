#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "adapter_options.h"
#include "model_options.h"
#include "options.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/convert.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct ConvertOptions {
  CommonOptions common;
  AdapterOptions adapters;
  ModelOptions files;
  std::string model, out, to, as, metadata = "minimum", save_precision;
  std::int64_t rank = 0;
  double max_error = 0.0;
};

formats::MetadataLevel metadata_level(const std::string& name) {
  if (name == "none") return formats::MetadataLevel::none;
  if (name == "minimum") return formats::MetadataLevel::minimum;
  if (name == "full") return formats::MetadataLevel::full;
  throw Error(ErrorCode::invalid_argument, "--metadata", "\"" + name + "\" is not known",
              "use none, minimum or full");
}

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

service::AdapterForm form_from_name(const std::string& name) {
  if (name.empty()) return service::AdapterForm::stored;
  if (name == "lora") return service::AdapterForm::low_rank;
  if (name == "diff") return service::AdapterForm::difference;
  throw Error(ErrorCode::invalid_argument, "--as", "\"" + name + "\" is not known",
              "use lora or diff");
}

service::ConvertRequest request_of(const ConvertOptions& o) {
  service::ConvertRequest request;
  request.model = o.model;
  request.files = o.files.files();
  request.adapters = parse_adapters(o.adapters);
  request.out = o.out;
  request.format = formats::parse_adapter_format(o.to);
  request.metadata = metadata_level(o.metadata);
  request.form = form_from_name(o.as);
  request.low_rank = {o.rank, o.max_error};
  if (!o.save_precision.empty()) request.storage = nn::select_precision(o.save_precision, at::kCPU);
  return request;
}

int convert(const ConvertOptions& o) {
  nlohmann::json result = {{"out", o.out}, {"to", o.to}};
  if (const auto approximation = service::convert(request_of(o)))
    result["approximation"] = report(*approximation, o.common.json);
  print_made(o.common.json, result, o.out);
  return 0;
}

}  // namespace

int cmd_convert(int argc, char** argv) {
  ConvertOptions options;
  OptionList list;
  CLI::App app(
      "Convert an adapter to another program's file format, or to another form.\nExamples:\n  "
      "ringlet "
      "convert --model MODEL --adapter runs/dog/adapter.safetensors --to peft --out dog-peft\n  "
      "ringlet convert --model MODEL --adapter a.safetensors --to kohya --as lora --rank 16 --out "
      "a-kohya.safetensors",
      "convert");
  list.add("model", options.model, "The model or network that the adapter is for, folder or file")
      .required();
  options.adapters.add_to(list);
  list.add("to", options.to, "ringlet, peft (a folder), diffusers, kohya or lycoris").required();
  list.add("out", options.out, "File, or folder for peft").required();
  list.add("as", options.as,
           "Convert to another form: lora (nearest low-rank factors, the error is printed) or diff "
           "(full weight differences)");
  list.add("rank", options.rank, "Rank of --as lora").within(Range::at_least(0));
  list.add("max_error", options.max_error,
           "Instead of a rank: each layer's smallest rank with at most this relative error")
      .within(Range::share());
  list.add("metadata", options.metadata,
           "Training metadata to keep: none, minimum, or full (captions, folder names)");
  list.add("save_precision", options.save_precision, "fp32, fp16 or bf16; default: as read");
  options.files.add_files(list);
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  return nn::with_ringlet_errors("convert", [&] { return convert(options); });
}

}  // namespace ringlet::app
