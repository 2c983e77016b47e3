#include "ringlet/service/merge.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <system_error>

#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/adapt/set/arithmetic.h"
#include "ringlet/core/atomic_file.h"
#include "ringlet/core/error.h"
#include "ringlet/core/log.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/torch_errors.h"
#include "ringlet/pipeline/generation.h"
#include "ringlet/pipeline/model_families.h"
#include "ringlet/service/adaptable_model.h"
#include "ringlet/service/adapters.h"
#include "ringlet/service/request_json.h"

namespace ringlet::service {
namespace {

namespace fs = std::filesystem;

/// A small picture in few steps: enough to see whether two models agree.
io::Image test_picture(const pipeline::TextToImageModel& model) {
  pipeline::GenerateRequest request;
  request.prompt = "a photo";
  request.seeds = {1};
  request.steps = 4;
  request.sampler = diffusion::find_sampler("ddim");
  constexpr std::int64_t kLargest = 32;  // units of a side
  const PictureSize own = model.defaults().size;
  const std::int64_t most = kLargest * model.size_unit();
  request.size = {std::min(own.width, most), std::min(own.height, most)};
  return pipeline::generate(model, request).front();
}

/// Mean difference of two pictures in 8-bit steps.
double difference(const io::Image& a, const io::Image& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) sum += std::abs(a.pixels[i] - b.pixels[i]);
  return sum / static_cast<double>(a.pixels.size());
}

/// Compares the merged model with the base under its adapters; returns the difference.
double check_agreement(const MergeRequest& r) {
  pipeline::LoadOptions load;
  load.files = r.files;
  load.device = r.device;
  if (load.files.tokenizer.empty() && fs::is_regular_file(r.model))
    load.files.tokenizer = r.model.parent_path() / "tokenizer";
  const auto unmerged = pipeline::open_text_to_image_model(r.model, load);
  LoadedAdapters adapters = load_adapters(*unmerged, r.adapters, "");
  for (adapt::AdapterSet& set : adapters.sets) set.attach();
  const io::Image expected = test_picture(*unmerged);
  for (adapt::AdapterSet& set : adapters.sets) set.detach();
  pipeline::LoadOptions merged = load;
  if (fs::is_directory(r.out)) merged.files.tokenizer.clear();  // it has its own
  if (fs::is_directory(r.model)) merged.files.variant.clear();  // written under the plain names
  const double found =
      difference(expected, test_picture(*pipeline::open_text_to_image_model(r.out, merged)));
  constexpr double kLargest = 2.0;  // fp16 files round the merged weights
  if (found > kLargest)
    throw Error(ErrorCode::mismatch, r.out.string(),
                "the merged model's pictures differ from the adapter's by " +
                    std::to_string(found) + " of 255 on average",
                "the weights' type may be too narrow for this adapter; the result was kept");
  char text[96];
  std::snprintf(text, sizeof text,
                "check: merged and unmerged pictures differ by %.3f of 255 on average", found);
  log(LogLevel::info, text);
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
      make_folder(to);
      fs::copy_file(entry.path(), to / name, fs::copy_options::overwrite_existing);
    }
  }
}

/// Into the weights of a network that is not a text-to-image model. A folder becomes a folder, with
/// its other files.
void merge_other(const MergeRequest& r, const nn::FileStore& weights,
                 const LoadedAdapters& adapters) {
  const auto sets = pointers_to(adapters.sets);
  if (!fs::is_directory(r.model)) return pipeline::merge_tensor_file(weights, sets, r.out);
  std::error_code problem;
  if (fs::equivalent(r.model, r.out, problem))
    throw Error(ErrorCode::invalid_argument, r.out.string(), "this is the network itself",
                "write to another folder");
  make_folder(r.out);
  pipeline::merge_tensor_file(weights, sets, r.out / weights.files().front()->path().filename());
  copy_other_files(r.model, r.out);
  // With a new head the network is one of other classes.
  for (const adapt::AdapterFileInfo& info : adapters.infos)
    if (!info.new_layers.empty() && !info.network_config.empty())
      write_file_atomically(r.out / "config.json", info.network_config);
}

/// One adapter that does what all do together.
void merge_into_adapter(const MergeRequest& r, const AdaptableModel& base,
                        const LoadedAdapters& adapters) {
  adapt::AdapterFileInfo info;
  info.base_hash = base.hash;
  info.base_kind = base.kind();
  keep_control(adapters, info);
  for (const adapt::AdapterFileInfo& one : adapters.infos) {
    info.new_layers.insert(one.new_layers.begin(), one.new_layers.end());
    if (!one.new_layers.empty()) info.network_config = one.network_config;
  }
  adapt::save_adapter(r.out, adapt::combine(pointers_to(adapters.sets)), info);
}

void merge_model(const MergeRequest& r, const pipeline::TextToImageModel& model,
                 const LoadedAdapters& adapters) {
  if (with_control(adapters) != nullptr)
    log(LogLevel::warning,
        "the control encoder of the adapter is not part of a model and is skipped");
  const auto sets = pointers_to(adapters.sets);
  if (r.out.extension() == ".safetensors")
    pipeline::merge_into_file(model, sets, r.out);
  else
    pipeline::merge_into_folder(model, sets, r.out);
}

/// Writes the result; says whether it is a text-to-image model, which can be compared. What was
/// opened for it is closed then.
bool write_merged(const MergeRequest& r) {
  const AdaptableModel opened = open_adaptable(r.model, r.files, r.adapters);
  const LoadedAdapters adapters =
      load_adapters(opened.components(), r.adapters, opened.hash, opened.kind());
  if (r.into_adapter) {
    merge_into_adapter(r, opened, adapters);
    return false;
  }
  if (!opened.model) {
    merge_other(r, *opened.weights, adapters);
    return false;
  }
  merge_model(r, *opened.model, adapters);
  return true;
}

}  // namespace

void describe(OptionList& list, MergeRequest& r) {
  list.add("model", r.model, "Model folder, single checkpoint, or .safetensors file").required();
  list.add("out", r.out, "Folder, or .safetensors file for single-file models").required();
  pipeline::describe(list, r.files);
  list.add("into_adapter", r.into_adapter,
           "Write one adapter that does exactly what all do together, instead of a model");
  list.add("no_check", r.no_check, "Do not compare pictures of the merged and the unmerged model");
}

MergeRequest merge_request_from_json(const Json& json) {
  MergeRequest request;
  OptionList list;
  describe(list, request);
  JsonFields fields(json);
  read_options(fields, list);
  std::string device = request.device.str();
  fields.read("device", device);
  request.device = nn::select_device(device);
  read_adapters(fields, request.adapters);
  fields.finish();
  return request;
}

Json to_json(const MergeRequest& request) {
  MergeRequest described = request;
  OptionList list;
  describe(list, described);
  Json json = set_values(list);
  json["device"] = request.device.str();
  write_adapters(json, request.adapters);
  return json;
}

std::optional<double> merge(const MergeRequest& request) {
  return nn::with_ringlet_errors(request.out.string(), [&]() -> std::optional<double> {
    if (request.adapters.empty())
      throw Error(ErrorCode::invalid_argument, Field("adapter"), "an adapter file is needed");
    if (!write_merged(request) || request.no_check) return std::nullopt;
    return check_agreement(request);
  });
}

}  // namespace ringlet::service
