#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "adapter_options.h"
#include "model_options.h"
#include "options.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/adapters.h"
#include "ringlet/service/merge.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct MergeOptions {
  CommonOptions common;
  ModelOptions files;
  std::string model, out;
  AdapterOptions adapters;
  bool no_check = false;
  bool into_adapter = false;
};

int merge(const MergeOptions& o) {
  service::MergeRequest request;
  request.model = o.model;
  request.files = o.files.files();
  request.adapters = parse_adapters(o.adapters);
  request.out = o.out;
  request.into_adapter = o.into_adapter;
  request.compare_on = o.no_check ? std::nullopt : std::optional(o.common.select_device());
  nlohmann::json result = {{"out", o.out},
                           {"adapters", service::describe_adapters(request.adapters)}};
  if (const std::optional<double> difference = service::merge(request))
    result["difference"] = *difference;
  print_made(o.common.json, result, o.out);
  return 0;
}

}  // namespace

int cmd_merge(int argc, char** argv) {
  MergeOptions options;
  OptionList list;
  CLI::App app(
      "Merge adapters into a model's weights.\nExample:\n  ringlet merge --model MODEL --adapter "
      "runs/dog/adapter.safetensors --out merged\n  ringlet merge --model MODEL --adapter a:0.7 "
      "--adapter b:-0.3 --into-adapter --out both.safetensors\nMODEL may also be the folder of a "
      "network that tune supports, or any .safetensors file with the tensors that the adapter "
      "changes: a "
      "U-Net of diffusers, a text encoder, GPT-2, BERT, anything else.",
      "merge");
  list.add("model", options.model, "Model folder, single checkpoint, or .safetensors file")
      .required();
  options.adapters.add_to(list);
  list.add("out", options.out, "Folder, or .safetensors file for single-file models").required();
  options.files.add_files(list);
  list.add("into_adapter", options.into_adapter,
           "Instead of a model, write one adapter that equals all given ones together");
  list.add("no_check", options.no_check,
           "Do not compare pictures of the merged and the unmerged model");
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  return nn::with_ringlet_errors("merge", [&] { return merge(options); });
}

}  // namespace ringlet::app
