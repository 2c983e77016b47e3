// What a network is fine-tuned for: all that differs between one training run and another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/adapt/set/adapter_file.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/adapt/set/targets.h"
#include "ringlet/core/json.h"
#include "ringlet/io/image.h"
#include "ringlet/train/memory_plan.h"
#include "ringlet/train/report.h"
#include "ringlet/train/run_options.h"
#include "ringlet/train/score.h"
#include "ringlet/train/trainable.h"

namespace ringlet::train {

/// What is seen of a network at one step.
struct Observation {
  std::vector<Score> scores;          ///< by the same names at every step; may be empty
  std::optional<io::Image> pictures;  ///< a sheet of samples
};

/// How a run treats a task's observations.
struct ObservationRules {
  std::string what = "scores";            ///< for messages
  std::string score_file = "scores.csv";  ///< in the run's folder
  bool any = true;                        ///< false: there is nothing to look at
  bool pictures = false;                  ///< each has pictures, and may have scores
  bool needed = true;                     ///< one that fails ends the run; without, it is a warning
  bool base_first = false;  ///< the one before the first step is of the network without adapters
};

/// Follows the stages of a preparation; returning false stops it with Error(cancelled).
using StageProgress =
    std::function<bool(const std::string& stage, std::size_t done, std::size_t total)>;

/// Names and values, as a plan and a report show them.
using Lines = std::vector<std::pair<std::string, std::string>>;

/// How a program spells a field of the options ("class_prompt"): "--class-prompt".
using Spelling = std::function<std::string(const std::string& field)>;

/// The examples of a micro-batch from `begin` to `end`, of `of`.
struct BatchPart {
  std::int64_t begin = 0, end = 0, of = 0;

  /// The part-th of some of about one size.
  static BatchPart of_batch(std::int64_t batch_size, std::int64_t part, std::int64_t parts) {
    return {part * batch_size / parts, (part + 1) * batch_size / parts, batch_size};
  }
  double share() const { return static_cast<double>(end - begin) / static_cast<double>(of); }
};

/// What learns in a run.
struct Learners {
  const adapt::AdapterSet* adapters = nullptr;  ///< null without adapters
  std::int64_t parameters = 0;                  ///< all of them
  std::uint64_t optimizer_bytes = 0;            ///< of the optimiser's state for them
};

/// A network and its examples. Losses and observations are functions of the weights, the adapters
/// on them and the number of the micro-batch or step alone. The calls come in the order below; what
/// can be known to be wrong is an Error of the constructor.
class Task {
 public:
  virtual ~Task() = default;

  // What learns.

  /// The networks that adapters can change, by name.
  virtual adapt::Components components() const = 0;

  /// The layers to adapt, from those that were asked for. As they are unless overridden.
  virtual adapt::TargetOptions targets(const adapt::TargetOptions& asked) const { return asked; }

  /// Full names of layers that are trained in full beside the adapters: a head that a checkpoint
  /// lacks.
  virtual std::vector<std::string> new_layers() const { return {}; }

  /// What learns besides adapters: with method "full" the network's own weights.
  virtual std::vector<Trainable> trainables() const = 0;

  // The plan.

  /// What an epoch shows, repeats included.
  virtual std::int64_t epoch_size() const = 0;

  /// What the network computes in: losses in fp16 are scaled (LossScale).
  virtual at::ScalarType precision() const { return at::kFloat; }

  /// The size of an example, where there is one: "512 pixels".
  virtual std::string example_size() const { return {}; }

  /// All that learns is known: chooses what of the network stays in host memory, without a limit.
  virtual void fit(const Learners&) {}

  // Memory, as train/memory_plan.h plans it.

  /// What the run needs with these savings; nothing = not known, so that no limit can be kept.
  virtual std::optional<MemoryNeed> memory(const Learners&, const MemorySavings&) const {
    return std::nullopt;
  }

  /// Whether the loss of a micro-batch is a sum over its examples.
  virtual bool divisible() const { return false; }

  /// Of every example, how many rows the network sees: 2 where each stands beside another one, in
  /// a second half of the batch.
  virtual std::int64_t rows_per_example() const { return 1; }

  /// How the frozen base can be stored, in the order of growing harm; the first as it was asked
  /// for.
  virtual std::vector<nn::WeightStorage> storages() const { return {nn::WeightStorage::as_stored}; }

  /// How many blocks can stay in host memory, where the user has not said how many.
  virtual std::int64_t offloadable() const { return 0; }

  /// Sides of the autoencoder's tiles, from large to small; 0 = no tiles.
  virtual std::vector<std::int64_t> tiles() const { return {0}; }

  /// The network and its examples, for people.
  virtual Lines plan_lines(const Spelling& option) const = 0;

  /// The same for programs: an object with keys in snake_case.
  virtual Json plan_json(const Spelling& option) const = 0;

  /// Checks of examples that take time: damaged files are found before anything is made.
  virtual void check(const StageProgress&) {}

  /// What a resumed run must find unchanged of the task. A null is a value that takes time to find
  /// out, or will be made: it comes from prepare().
  virtual Json settings() const = 0;

  // The run.

  /// Makes and encodes what the run needs. Returns the settings that were null.
  virtual Json prepare(const Learners&, const StageProgress&) { return Json::object(); }

  /// The loss of a micro-batch (LossFunction), without penalties: the share that the examples of a
  /// part have in it. The part is the whole unless the task is divisible().
  virtual at::Tensor loss(std::int64_t micro_batch, const BatchPart& part) const = 0;

  /// What people call the examples of a micro-batch, for messages: one name for each of the batch.
  /// None unless overridden.
  virtual std::vector<std::string> example_names(std::int64_t micro_batch) const {
    static_cast<void>(micro_batch);
    return {};
  }

  virtual ObservationRules observation_rules() const { return {}; }

  /// Looks at the network as it is after `step` steps. Nothing asks for gradients meanwhile.
  virtual Observation observe(std::int64_t step) const = 0;

  // The result.

  /// Writes the weights of a run of method "full" as a model's folder.
  virtual void save_model(const std::filesystem::path& folder, at::ScalarType precision) const = 0;

  /// Completes what is said in an adapter's file, and with it the tensors of a network that learns
  /// beside the adapters.
  virtual void complete(adapt::AdapterFileInfo&) const {}

  /// The folder, inside that of the run, of what is saved beside an adapter or, with method "none",
  /// alone; "" = nothing.
  virtual std::string companion() const { return {}; }
  virtual void save_companion(const std::filesystem::path&, at::ScalarType) const {}

  /// Adds to a report. Unless overridden the scores: a chart of each, and its values before and
  /// after. Overriders that add more may call it.
  virtual void describe(Report& report, const std::vector<ScoreRow>& scores) const;

  /// Describes the rows of the pictures' sheets.
  virtual std::string picture_caption() const { return {}; }
};

/// Opens a task for a run whose options have been checked; they outlive the task.
using OpenTask = std::function<std::unique_ptr<Task>(const RunOptions&)>;

}  // namespace ringlet::train
