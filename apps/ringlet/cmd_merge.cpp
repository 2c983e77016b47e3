#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "adapter_options.h"
#include "options.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/service/adapters.h"
#include "ringlet/service/merge.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

struct MergeOptions {
  CommonOptions common;
  AdapterOptions adapters;
  service::MergeRequest request;
};

int merge(MergeOptions& o) {
  service::MergeRequest& request = o.request;
  request.adapters = parse_adapters(o.adapters);
  if (!request.no_check) request.device = o.common.select_device();
  nlohmann::json result = {{"out", request.out.string()},
                           {"adapters", service::describe_adapters(request.adapters)}};
  if (const std::optional<double> difference = service::merge(request))
    result["difference"] = *difference;
  print_made(o.common.json, result, request.out.string());
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
  service::describe(list, options.request);
  options.adapters.add_to(list);
  options.common.add_to(list);
  if (const ParseResult done = parse(app, list, argc, argv)) return *done;
  options.common.apply();
  return nn::with_ringlet_errors("merge", [&] { return merge(options); });
}

}  // namespace ringlet::app
