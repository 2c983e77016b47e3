// What a network can be fine-tuned for: its examples, their loss, and how well it does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/weight_source.h"

namespace ringlet::tune {

/// A number that says how well a network does on held-out examples.
struct Score {
  std::string name;
  bool higher_is_better = true;
  double value = 0.0;
};

struct TaskOptions {
  std::filesystem::path model;      ///< folder with config.json, model.safetensors, tokenizer files
  std::filesystem::path data;       ///< what to learn from; the form is the task's
  std::filesystem::path eval_data;  ///< what to measure on; empty = every tenth example of `data`
  std::optional<std::uint64_t> random_seed;  ///< weights that the folder lacks start at random
  nn::WeightOptions weights;
  std::int64_t length = 128;  ///< tokens of a text
  std::string loss;           ///< where a task has several; "" = what the data are for
};

/// A network and its examples. Losses and scores are functions of the weights, the adapters on them
/// and the rows alone.
class Task {
 public:
  virtual ~Task() = default;

  /// For the plan and the report: "vit, 10 classes".
  virtual std::string description() const = 0;

  /// Globs over "model.LAYER" that adapters go to unless the user says otherwise.
  virtual std::vector<std::string> usual_targets() const = 0;

  /// Names of layers that learn as they are beside the adapters: the head that a checkpoint lacks.
  virtual std::vector<std::string> new_layers() const { return {}; }

  virtual std::size_t examples() const = 0;

  /// The picture files of all examples, those to learn from and those held out.
  virtual std::vector<std::filesystem::path> pictures() const { return {}; }

  virtual std::size_t held_out() const = 0;

  /// The mean loss of some examples, with its gradient.
  virtual at::Tensor loss(std::span<const std::size_t> rows) const = 0;

  /// On the held-out examples; the first score is the main one.
  virtual std::vector<Score> evaluate() const = 0;

  /// Beside model.safetensors, what a folder of the tuned network needs, by file name.
  virtual std::map<std::string, std::string> model_files() const = 0;

  /// Of the new layers those that no checkpoint has: their starts are functions of the names that
  /// they go by in ringlet (nn::made_linear_layer), which are the values here.
  const std::map<std::string, std::string>& made_layers() const { return made_layers_; }

  const nn::ModuleIndex& network() const { return network_; }

 protected:
  std::map<std::string, std::string> made_layers_;
  nn::ModuleIndex network_;
};

/// The names of the tasks.
std::vector<std::string> task_names();

/// Opens a task's network and examples. Throws Error(invalid_argument) for an unknown name, and as
/// reading the files does.
std::unique_ptr<Task> open_task(const std::string& name, const TaskOptions& options);

}  // namespace ringlet::tune
