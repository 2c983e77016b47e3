// What all tasks of lists of examples have in common.
#include <algorithm>
#include <numeric>
#include <utility>

#include <ATen/Parallel.h>

#include "ringlet/core/atomic_file.h"
#include "ringlet/core/make_folder.h"
#include "ringlet/core/memory_use.h"
#include "ringlet/core/random.h"
#include "ringlet/core/sha256.h"
#include "ringlet/core/text.h"
#include "ringlet/data/picture_check.h"
#include "ringlet/io/tensor_file.h"
#include "ringlet/nn/byte_count.h"
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

bool ExampleTask::divisible() const {
  // Input dropout counts the numbers of a batch, whose texts are as long as its longest.
  return is_mean() && run_.dropout.input == 0.0;
}

at::Tensor ExampleTask::loss(std::int64_t micro_batch, const train::BatchPart& part) const {
  std::vector<std::size_t> order(examples());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const std::vector<std::size_t> rows =
      train::batch_rows(order, Random(run_.seed), "examples", micro_batch, part.of);
  const auto count = static_cast<std::size_t>(part.end - part.begin);
  const at::Tensor loss =
      loss_of(std::span(rows).subspan(static_cast<std::size_t>(part.begin), count));
  return count == rows.size() ? loss : loss * part.share();
}

/// By forward and backward passes of the largest example, once and twice.
ExampleTask::StepBytes ExampleTask::measure_step() const {
  std::vector<std::size_t> all(examples());
  std::iota(all.begin(), all.end(), std::size_t{0});
  const std::size_t largest =
      *std::ranges::max_element(all, {}, [this](std::size_t row) { return size_of(row); });
  const auto peak_of = [&](std::size_t count) {
    const std::vector<std::size_t> rows(count, largest);
    const nn::ByteCount bytes;
    loss_of(rows).backward();
    return static_cast<double>(bytes.peak());
  };
  const double one = peak_of(1), two = peak_of(2);
  return {one, std::max(0.0, two - one)};
}

std::vector<nn::WeightStorage> ExampleTask::storages() const {
  using nn::WeightStorage;
  // What was chosen stands in the options of a task that is opened again.
  const bool chosen = run_.savings.storage != WeightStorage::as_stored;
  const WeightStorage given = chosen ? WeightStorage::as_stored : options_.weights.storage;
  if (run_.full() || given != WeightStorage::as_stored) return {given};
  return {WeightStorage::as_stored, WeightStorage::bf16, WeightStorage::fp8, WeightStorage::int8,
          WeightStorage::nf4};
}

/// Bytes that the frozen layers take more than now, or less, in another storage.
double ExampleTask::storage_change(nn::WeightStorage storage) const {
  if (storage == nn::WeightStorage::as_stored || storage == options_.weights.storage) return 0.0;
  double change = 0.0;
  for (const auto& [name, layer] : network_.layers)
    if (dynamic_cast<const nn::EmbeddingLayer*>(layer.get()) == nullptr)
      change +=
          static_cast<double>(layer->stored_weight().numel()) * nn::bytes_per_number(storage) -
          static_cast<double>(layer->stored_weight().nbytes());
  return change;
}

std::optional<train::MemoryNeed> ExampleTask::memory(const train::Learners& learners,
                                                     const train::MemorySavings& savings) const {
  if (run_.memory_limit == 0) return std::nullopt;  // a measurement takes two steps' time
  if (!measured_) measured_ = measure_step();
  const std::int64_t rows = (run_.batch_size + savings.parts - 1) / savings.parts;
  // As in train/memory_estimate.cpp.
  constexpr double kBetween = 1.15;
  const double step = measured_->one + static_cast<double>(rows - 1) * measured_->more;
  const bool average = run_.trainer.ema_decay > 0.0;
  const std::uint64_t learning =
      (average ? 2 : 1) * sizeof(float) * static_cast<std::uint64_t>(learners.parameters) +
      learners.optimizer_bytes;
  const bool on_cpu = options_.weights.device.is_cpu();
  std::uint64_t beside = learning, before = 0;
  if (on_cpu) {
    return_free_memory();
    beside += resident_bytes();  // with the weights and the code that a step needs
    before = peak_resident_bytes();
  } else {
    beside += sizeof(float) * static_cast<std::uint64_t>(learners.parameters);
    beside += network_.bytes();
  }
  beside = static_cast<std::uint64_t>(
      std::max(0.0, static_cast<double>(beside) + storage_change(savings.storage)));
  return train::MemoryNeed{
      .beside = beside, .apart = before, .blocks = {{.before = on_cpu ? kBetween * step : step}}};
}

std::size_t ExampleTask::at_a_time(std::size_t usual) const {
  const std::int64_t parts = run_.savings.parts;
  if (parts == 1) return usual;
  return std::min(usual, static_cast<std::size_t>((run_.batch_size + parts - 1) / parts));
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
