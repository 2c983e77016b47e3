// What a network beside text-to-image models is fine-tuned for: its examples, their loss, and how
// well it does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/option.h"
#include "ringlet/nn/weight_source.h"
#include "ringlet/train/task.h"

namespace ringlet::tune {

using train::Score;

struct TaskOptions {
  std::string task;                 ///< its name: task_names()
  std::filesystem::path model;      ///< folder with config.json, model.safetensors, tokenizer files
  std::filesystem::path data;       ///< what to learn from; the form is the task's
  std::filesystem::path eval_data;  ///< what to measure on; empty = every tenth example of `data`
  std::optional<std::uint64_t> random_seed;  ///< weights that the folder lacks start at random
  /// Whether they learn follows from the method. A storage is for the frozen layers.
  nn::WeightOptions weights;
  std::int64_t length = 128;  ///< tokens of a text
  std::string loss;           ///< where a task has several; "" = what the data are for
};

/// The task, its data, and what it does with them. The network's folder, and how it is opened, are
/// the caller's.
void describe(OptionList& list, TaskOptions& options);

/// A network and its examples, a list of rows to draw from. A task's own class says what an example
/// and its loss are.
class ExampleTask : public train::Task {
 public:
  /// For the plan and the report: "vit, 10 classes".
  virtual std::string description() const = 0;

  /// Globs over "model.LAYER" that adapters go to unless the user says otherwise.
  virtual std::vector<std::string> usual_targets() const = 0;

  /// Names of layers that are trained in full beside the adapters: the head that a checkpoint
  /// lacks.
  virtual std::vector<std::string> heads() const { return {}; }

  virtual std::size_t examples() const = 0;

  /// The picture files of all examples, those to learn from and those held out.
  virtual std::vector<std::filesystem::path> pictures() const { return {}; }

  virtual std::size_t held_out() const = 0;

  /// The mean loss of some examples, with its gradient.
  virtual at::Tensor loss_of(std::span<const std::size_t> rows) const = 0;

  /// How large an example is beside others: tokens, samples of sound.
  virtual std::size_t size_of(std::size_t) const { return 1; }

  /// Whether loss_of is a mean of what each example has alone, in whatever company.
  virtual bool is_mean() const { return true; }

  /// On the held-out examples; the first score is the main one.
  virtual std::vector<Score> evaluate() const = 0;

  /// Beside model.safetensors, what a folder of the tuned network needs, by file name.
  virtual std::map<std::string, std::string> model_files() const = 0;

  // Of train::Task.
  adapt::Components components() const final;
  adapt::TargetOptions targets(const adapt::TargetOptions& asked) const final;
  std::vector<std::string> new_layers() const final;
  std::vector<train::Trainable> trainables() const final;
  at::ScalarType precision() const final { return options_.weights.dtype; }
  std::int64_t epoch_size() const final { return static_cast<std::int64_t>(examples()); }
  train::Lines plan_lines(const train::Spelling& option) const final;
  Json plan_json(const train::Spelling& option) const final;
  void check(const train::StageProgress& progress) final;
  Json settings() const final;
  Json prepare(const train::Learners& learners, const train::StageProgress& progress) final;
  at::Tensor loss(std::int64_t micro_batch, const train::BatchPart& part) const final;
  bool divisible() const final;
  std::vector<nn::WeightStorage> storages() const final;
  std::optional<train::MemoryNeed> memory(const train::Learners& learners,
                                          const train::MemorySavings& savings) const final;
  train::Observation observe(std::int64_t step) const final;
  void save_model(const std::filesystem::path& folder, at::ScalarType precision) const final;
  void complete(adapt::AdapterFileInfo& info) const final;
  void describe(train::Report& report, const std::vector<train::ScoreRow>& scores) const final;

 protected:
  ExampleTask(const TaskOptions& options, const train::RunOptions& run);

  /// How many examples are computed at a time where no gradient is asked for: no more than in a
  /// part of a micro-batch.
  std::size_t at_a_time(std::size_t usual) const;

  const TaskOptions options_;
  const train::RunOptions& run_;

  /// Of the heads those that no checkpoint has: their starts are functions of the names that they
  /// go by in ringlet (nn::made_linear_layer), which are the values here.
  std::map<std::string, std::string> made_layers_;
  nn::ModuleIndex network_;

 private:
  /// Bytes of a step with one of the largest example, and of each one more.
  struct StepBytes {
    double one = 0.0, more = 0.0;
  };
  StepBytes measure_step() const;
  double storage_change(nn::WeightStorage storage) const;

  std::string picture_contents_;  ///< a hash; "" without pictures
  mutable std::optional<StepBytes> measured_;
};

/// The names of the tasks.
std::vector<std::string> task_names();

/// Opens a task's network and examples for a run. Throws Error(invalid_argument) for an unknown
/// name, and as reading the files does.
train::OpenTask task(const TaskOptions& options);

}  // namespace ringlet::tune
