#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>

#include <nlohmann/json.hpp>

#include "adapter_options.h"
#include "options.h"
#include "ringlet/adapt/arithmetic.h"
#include "ringlet/core/log.h"
#include "ringlet/formats/adapter_reader.h"
#include "ringlet/formats/adapter_writer.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

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
  std::vector<adapt::LayerError> layers = approximation.layers;
  std::ranges::sort(layers, std::greater(), &adapt::LayerError::relative);
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

void check(const ConvertOptions& o) {
  if (o.adapters.files.empty())
    throw Error(ErrorCode::invalid_argument, "--adapter", "an adapter is needed");
  const bool low_rank = o.as == "lora";
  if (!o.as.empty() && !low_rank && o.as != "diff")
    throw Error(ErrorCode::invalid_argument, "--as", "\"" + o.as + "\" is not known",
                "use lora or diff");
  if (low_rank != (o.rank > 0 || o.max_error > 0.0) || (o.rank > 0 && o.max_error > 0.0))
    throw Error(ErrorCode::invalid_argument, "--as",
                "lora goes with one of --rank and --max-error, and nothing else does",
                "for example --as lora --rank 16");
  if (!(o.max_error >= 0.0) || o.max_error >= 1.0)
    throw Error(ErrorCode::invalid_argument, "--max-error", "must lie between 0 and 1");
  if (o.rank < 0)
    throw Error(ErrorCode::invalid_argument, "--rank", "must be a whole number above 0");
}

int convert(const ConvertOptions& o) {
  check(o);
  formats::AdapterWriteOptions writing;
  writing.format = formats::parse_adapter_format(o.to);
  writing.metadata = metadata_level(o.metadata);
  writing.title = fs::path(o.out).stem().string();
  const std::vector<pipeline::AdapterChoice> choices = parse_adapters(o.adapters);
  const OpenedModel opened = open_for_adapters(o.model, o.files, choices);
  const adapt::Components components = opened.components();
  writing.class_names = opened.class_names;

  nlohmann::json result = {{"out", o.out}, {"to", o.to}};
  const LoadedAdapters adapters = load_adapters(components, choices, opened.hash);
  const std::vector<adapt::AdapterSet>& sets = adapters.sets;
  adapt::AdapterFileInfo info;
  if (choices.size() == 1)
    info = adapters.infos.front();
  else
    keep_control(adapters, info);
  info.base_hash = opened.hash;
  if (!o.save_precision.empty()) info.storage = nn::select_precision(o.save_precision, at::kCPU);
  std::optional<adapt::AdapterSet> made;
  if (o.as == "lora") {
    adapt::Approximation low = adapt::as_low_rank(pointers_to(sets), {o.rank, o.max_error});
    result["approximation"] = report(low, o.common.json);
    made = std::move(low.set);
  } else if (o.as == "diff") {
    made = adapt::as_difference(pointers_to(sets));
  } else if (sets.size() > 1 || choices.front().strength != 1.0 || !o.adapters.blocks.empty()) {
    made = adapt::combine(pointers_to(sets));
  }
  formats::write_adapter(o.out, made ? *made : sets.front(), info, components, writing);
  print_made(o.common.json, result, o.out);
  return 0;
}

}  // namespace

int cmd_convert(int argc, char** argv) {
  ConvertOptions options;
  CLI::App app(
      "Turn an adapter into another program's file, or into another form.\nExamples:\n  ringlet "
      "convert --model MODEL --adapter runs/dog/adapter.safetensors --to peft --out dog-peft\n  "
      "ringlet convert --model MODEL --adapter a.safetensors --to kohya --as lora --rank 16 --out "
      "a-kohya.safetensors",
      "convert");
  app.add_option("--model", options.model,
                 "The model or network that the adapter is for, folder or file")
      ->required();
  options.adapters.add_to(app);
  app.add_option("--to", options.to, "ringlet, peft (a folder), diffusers, kohya or lycoris")
      ->required();
  app.add_option("--out", options.out, "File, or folder for peft")->required();
  app.add_option("--as", options.as,
                 "Another form: lora (nearest low rank, the error is printed) or diff (whole "
                 "differences)");
  app.add_option("--rank", options.rank, "Rank of --as lora");
  app.add_option("--max-error", options.max_error,
                 "Instead of a rank: each layer's smallest rank with at most this relative error");
  app.add_option(
      "--metadata", options.metadata,
      "What of the training goes along: none, minimum, or full (captions, folder names)");
  app.add_option("--save-precision", options.save_precision,
                 "fp32, fp16 or bf16; default: as read");
  options.files.add_files(app);
  options.common.add_to(app);
  if (const ParseResult done = parse(app, argc, argv)) return *done;
  options.common.apply();
  return nn::with_ringlet_errors("convert", [&] { return convert(options); });
}

}  // namespace ringlet::app
