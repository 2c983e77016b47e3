#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "adapter_options.h"
#include "options.h"
#include "ringlet/adapt/adapter_file.h"
#include "ringlet/adapt/arithmetic.h"
#include "ringlet/core/atomic_file.h"
#include "ringlet/core/log.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/merge.h"
#include "ringlet/pipeline/other_network.h"
#include "ringlet/pipeline/picture_text.h"
#include "verbs.h"

namespace ringlet::app {
namespace {

namespace fs = std::filesystem;

struct MergeOptions {
  CommonOptions common;
  ModelOptions files;
  std::string model, out;
  AdapterOptions adapters;
  bool no_check = false;
  bool into_adapter = false;
};

/// A small picture in few steps: enough to see whether two models agree.
io::Image test_picture(const pipeline::StableDiffusion& model) {
  pipeline::GenerateRequest request;
  request.prompt = "a photo";
  request.seeds = {1};
  request.steps = 4;
  request.sampler = diffusion::find_sampler("ddim");
  const std::int64_t unit = model.vae().config().downscale();
  constexpr std::int64_t kLargest = 32;
  request.size = PictureSize::square(std::min(model.unet().config().sample_size, kLargest) * unit);
  return model.decode(model.sample(request, {})).front();
}

/// Mean difference of two pictures in 8-bit steps.
double difference(const io::Image& a, const io::Image& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) sum += std::abs(a.pixels[i] - b.pixels[i]);
  return sum / static_cast<double>(a.pixels.size());
}

/// Compares the merged model with the base under its adapters; returns the difference.
double check_agreement(const MergeOptions& o, const std::vector<pipeline::AdapterChoice>& choices,
                       const pipeline::LoadOptions& load) {
  const auto unmerged = pipeline::StableDiffusion::open(o.model, load);
  std::vector<adapt::AdapterSet> sets = load_adapters(unmerged, choices, "").sets;
  for (adapt::AdapterSet& set : sets) set.attach();
  const io::Image expected = test_picture(unmerged);
  for (adapt::AdapterSet& set : sets) set.detach();
  pipeline::LoadOptions merged = load;
  if (fs::is_directory(o.out)) merged.files.tokenizer.clear();  // it has its own
  if (fs::is_directory(o.model)) merged.files.variant.clear();  // written under the plain names
  const double found =
      difference(expected, test_picture(pipeline::StableDiffusion::open(o.out, merged)));
  constexpr double kLargest = 2.0;  // fp16 files round the merged weights
  if (found > kLargest)
    throw Error(ErrorCode::mismatch, o.out,
                "the merged model's pictures differ from the adapter's by " +
                    std::to_string(found) + " of 255 on average",
                "the weights' type may be too narrow for this adapter; the result was kept");
  return found;
}

/// What a network's folder holds beside its weights, folders such as sentence-transformers'
/// 1_Pooling included. The same weights in other programs' formats would be unmerged.
void copy_other_files(const fs::path& from, const fs::path& to) {
  static constexpr std::array<std::string_view, 12> kWeights{
      ".safetensors", ".bin", ".pt",   ".pth",    ".ckpt", ".h5",
      ".msgpack",     ".ot",  ".onnx", ".tflite", ".gguf", ".npz"};
  for (const auto& entry : fs::directory_iterator(from)) {
    const fs::path name = entry.path().filename();
    std::error_code problem;
    if (name.string().starts_with(".") || fs::equivalent(entry.path(), to, problem)) continue;
    if (entry.is_directory()) {
      if (fs::exists(entry.path() / "config.json")) copy_other_files(entry.path(), to / name);
    } else if (entry.is_regular_file() &&
               std::ranges::find(kWeights, name.extension().string()) == kWeights.end()) {
      fs::create_directories(to);
      fs::copy_file(entry.path(), to / name, fs::copy_options::overwrite_existing);
    }
  }
}

/// Into the weights of a network that is no Stable Diffusion. A folder becomes a folder, with its
/// other files.
void merge_other(const MergeOptions& o, const fs::path& weights,
                 const std::vector<pipeline::AdapterChoice>& choices) {
  const OpenedModel opened = open_for_adapters(o.model, o.files, choices);
  const LoadedAdapters adapters = load_adapters(opened.components(), choices, opened.hash);
  const auto sets = pointers_to(adapters.sets);
  if (!fs::is_directory(o.model)) return pipeline::merge_tensor_file(weights, sets, o.out);
  std::error_code problem;
  if (fs::equivalent(o.model, o.out, problem))
    throw Error(ErrorCode::invalid_argument, o.out, "this is the network itself",
                "write to another folder");
  fs::create_directories(o.out);
  pipeline::merge_tensor_file(weights, sets, fs::path(o.out) / weights.filename());
  copy_other_files(o.model, o.out);
  // With a new head the network is one of other classes.
  for (const adapt::AdapterFileInfo& info : adapters.infos)
    if (!info.new_layers.empty() && !info.network_config.empty())
      write_file_atomically(fs::path(o.out) / "config.json", info.network_config);
}

/// One adapter that does what all do together.
void merge_into_adapter(const MergeOptions& o,
                        const std::vector<pipeline::AdapterChoice>& choices) {
  const OpenedModel opened = open_for_adapters(o.model, o.files, choices);
  const LoadedAdapters adapters = load_adapters(opened.components(), choices, opened.hash);
  adapt::AdapterFileInfo info;
  info.base_hash = opened.hash;
  keep_control(adapters, info);
  for (const adapt::AdapterFileInfo& one : adapters.infos) {
    info.new_layers.insert(one.new_layers.begin(), one.new_layers.end());
    if (!one.new_layers.empty()) info.network_config = one.network_config;
  }
  adapt::save_adapter(o.out, adapt::combine(pointers_to(adapters.sets)), info);
}

int merge(const MergeOptions& o) {
  if (o.adapters.files.empty())
    throw Error(ErrorCode::invalid_argument, "--adapter", "an adapter file is needed");
  const std::vector<pipeline::AdapterChoice> choices = parse_adapters(o.adapters);
  nlohmann::json result = {{"out", o.out}, {"adapters", describe_adapters(choices)}};
  if (o.into_adapter) {
    merge_into_adapter(o, choices);
  } else if (const fs::path other = pipeline::other_network_file(o.model); !other.empty()) {
    merge_other(o, other, choices);
  } else {
    pipeline::LoadOptions load;
    load.files = o.files.files();
    load.low_memory = true;
    {
      const auto model = pipeline::StableDiffusion::open(o.model, load);
      const LoadedAdapters adapters =
          load_adapters(model, choices, pipeline::model_hash(model.files()));
      if (with_control(adapters) != nullptr)
        log(LogLevel::warning,
            "the control encoder of the adapter is no part of a model and is left out");
      const std::vector<adapt::AdapterSet>& sets = adapters.sets;
      if (fs::path(o.out).extension() == ".safetensors")
        pipeline::merge_into_file(model, pointers_to(sets), o.out);
      else
        pipeline::merge_into_folder(model, pointers_to(sets), o.out);
    }
    if (!o.no_check) {
      load.low_memory = false;
      load.device = o.common.select_device();
      if (load.files.tokenizer.empty() && fs::is_regular_file(o.model))
        load.files.tokenizer = fs::path(o.model).parent_path() / "tokenizer";
      const double found = check_agreement(o, choices, load);
      char text[96];
      std::snprintf(text, sizeof text,
                    "check: merged and unmerged pictures differ by %.3f of 255 on average", found);
      log(LogLevel::info, text);
      result["difference"] = found;
    }
  }
  print_made(o.common.json, result, o.out);
  return 0;
}

}  // namespace

int cmd_merge(int argc, char** argv) {
  MergeOptions options;
  CLI::App app(
      "Write adapters into a model's weights.\nExample:\n  ringlet merge --model MODEL --adapter "
      "runs/dog/adapter.safetensors --out merged\n  ringlet merge --model MODEL --adapter a:0.7 "
      "--adapter b:-0.3 --into-adapter --out both.safetensors\nMODEL may also be the folder of a "
      "network that tune knows, or any "
      ".safetensors file whose tensors the adapter names: a U-Net of diffusers, a text encoder, "
      "GPT-2, BERT, anything else.",
      "merge");
  app.add_option("--model", options.model, "Model folder, single checkpoint, or .safetensors file")
      ->required();
  options.adapters.add_to(app);
  app.add_option("--out", options.out, "Folder, or .safetensors file for single-file models")
      ->required();
  options.files.add_files(app);
  app.add_flag("--into-adapter", options.into_adapter,
               "Write one adapter that does what all do together, exactly, instead of a model");
  app.add_flag("--no-check", options.no_check,
               "Do not compare pictures of the merged and the unmerged model");
  options.common.add_to(app);
  if (const ParseResult done = parse(app, argc, argv)) return *done;
  options.common.apply();
  return nn::with_ringlet_errors("merge", [&] { return merge(options); });
}

}  // namespace ringlet::app
