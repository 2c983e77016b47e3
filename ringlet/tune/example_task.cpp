// What all tasks of lists of examples have in common.
#include <numeric>
#include <utility>

#include <ATen/Parallel.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/random.h"
#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"
#include "ringlet/data/picture_check.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/device.h"
#include "ringlet/train/epoch_order.h"
#include "ringlet/tune/examples.h"
#include "ringlet/tune/task.h"

namespace ringlet::tune {
namespace {

namespace fs = std::filesystem;

constexpr const char* kComponent = "model";
constexpr const char* kWeights = "model.safetensors";

std::string full_name(const std::string& layer) { return std::string(kComponent) + "." + layer; }

}  // namespace

ExampleTask::ExampleTask(const TaskOptions& options, const train::RunOptions& run)
    : options_(options), run_(run) {}

adapt::Components ExampleTask::components() const { return {{kComponent, &network_}}; }

adapt::TargetOptions ExampleTask::targets(const adapt::TargetOptions& asked) const {
  adapt::TargetOptions targets = asked;
  if (targets.presets.empty() && targets.include.empty()) targets.include = usual_targets();
  return targets;
}

std::vector<std::string> ExampleTask::new_layers() const {
  std::vector<std::string> names;
  for (const std::string& head : heads()) names.push_back(full_name(head));
  return names;
}

std::vector<train::Trainable> ExampleTask::trainables() const {
  return train::trainables(network_);
}

train::Lines ExampleTask::plan_lines(const train::Spelling&) const {
  return {{"network", description() + " on " + options_.weights.device.str() + " in " +
                          nn::precision_name(options_.weights.dtype) +
                          train::base_storage_text(options_.weights.storage)},
          {"examples", std::to_string(examples()) + " for training, " + std::to_string(held_out()) +
                           " held out"}};
}

Json ExampleTask::plan_json(const train::Spelling&) const {
  return {{"network", description()}, {"examples", examples()}, {"held_out", held_out()}};
}

/// Damaged pictures are found before anything is trained, and exchanged ones by a resumed run.
void ExampleTask::check(const train::StageProgress& progress) {
  const std::vector<fs::path> files = pictures();
  if (files.empty()) return;
  data::PictureCheckOptions how{.threads = at::get_num_threads()};
  if (progress)
    how.progress = [&](std::size_t done, std::size_t total) {
      return progress("checking pictures", done, total);
    };
  picture_contents_ = sha256_text(join(data::check_pictures(files, options_.data.string(), how)));
}

Json ExampleTask::settings() const {
  TaskOptions described = options_;
  OptionList list;
  tune::describe(list, described);
  Json settings = list.settings();
  settings.update({{"network", description()},
                   {"examples", examples()},
                   {"held out", held_out()},
                   {"data", fingerprint(options_.data)},
                   {"eval data", fingerprint(options_.eval_data)},
                   {"precision", nn::precision_name(options_.weights.dtype)},
                   {"model", nullptr}});
  if (options_.weights.device.is_cuda()) settings["tf32"] = nn::tf32_allowed();
  if (!picture_contents_.empty()) settings["pictures' contents"] = picture_contents_;
  if (options_.loss.empty()) settings.erase("loss");
  return settings;
}

Json ExampleTask::prepare(const train::Learners&, const train::StageProgress&) {
  const fs::path weights = options_.model / kWeights;
  return {{"model", fs::exists(weights) ? sha256_file(weights) : ""}};
}

at::Tensor ExampleTask::loss(std::int64_t micro_batch) const {
  std::vector<std::size_t> order(examples());
  std::iota(order.begin(), order.end(), std::size_t{0});
  return loss_of(
      train::batch_rows(order, Random(run_.seed), "examples", micro_batch, run_.batch_size));
}

train::Observation ExampleTask::observe(std::int64_t) const { return {evaluate(), {}}; }

void ExampleTask::save_model(const fs::path& folder, at::ScalarType precision) const {
  make_folder(folder);
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : network_.tensors)
    tensors.emplace(name, tensor.is_floating_point() ? tensor.detach().to(precision) : tensor);
  for (const auto& [name, content] : model_files()) {
    make_folder((folder / name).parent_path());
    write_file_atomically(folder / name, content);
  }
  io::save_tensors(folder / kWeights, tensors);
}

void ExampleTask::complete(adapt::AdapterFileInfo& info) const {
  for (const auto& [layer, start] : made_layers_) info.new_layers.emplace(full_name(layer), start);
  const auto files = model_files();
  if (const auto config = files.find("config.json"); config != files.end())
    info.network_config = config->second;
}

void ExampleTask::describe(train::Report& report,
                           const std::vector<train::ScoreRow>& scores) const {
  report.summary.emplace_back("network", description());
  report.summary.emplace_back(
      "examples", std::to_string(examples()) + ", held out " + std::to_string(held_out()));
  train::Task::describe(report, scores);
}

}  // namespace ringlet::tune
