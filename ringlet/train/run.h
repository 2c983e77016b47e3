// A training run from its options to its files, whatever it trains: `ringlet train`, `ringlet
// tune`, and tasks of other programs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/train/adapter_training.h"
#include "ringlet/train/run_control.h"
#include "ringlet/train/run_lock.h"
#include "ringlet/train/run_log.h"
#include "ringlet/train/run_options.h"
#include "ringlet/train/score_file.h"
#include "ringlet/train/task.h"
#include "ringlet/train/trainer.h"

namespace ringlet::train {

/// What a run is going to do, for people to read before it starts. Task::plan_lines has the rest.
struct RunPlan {
  std::string method;          ///< with the sizes that a budget gave it
  std::size_t layers = 0;      ///< adapted ones; 0 without adapters
  std::size_t new_layers = 0;  ///< of them, those that are trained in full
  /// Which layers these are: a row for each of adapt::layer_group.
  struct Group {
    std::string name;
    std::size_t layers = 0;
    std::int64_t parameters = 0;  ///< of the adapters
  };
  std::vector<Group> groups = {};
  std::vector<adapt::BudgetRow> budget;  ///< how a budget was spent, by shape
  std::int64_t parameters = 0;
  std::int64_t steps = 0;
  std::int64_t first_step = 0;  ///< steps done before, when the run is resumed
  double epochs = 0.0;
  std::uint64_t expected_bytes = 0;  ///< at the peak; 0 = not known
  double extra_work = 0.0;  ///< that RunOptions::savings cost, relative to a step; estimated
};

/// How a program follows a run. Any of them may be empty; returning false stops the run.
struct RunObserver {
  StageProgress progress;
  StepObserver step;
};

/// Files in RunOptions::out: the result, checkpoints, metrics.csv, TensorBoard events, sample
/// sheets, scores and report.html. Only Error leaves the functions.
class Run {
 public:
  /// Checks the options, opens the task, builds the adapters, states the plan, checks the examples
  /// and compares the settings with those of the run to resume; writes nothing. Throws
  /// Error(invalid_argument | not_found | mismatch | …) for everything that can be known to be
  /// wrong, Error(out_of_memory) with the smallest limit that would do where nothing fits into
  /// `memory_limit`, and Error(cancelled) when `observer.progress` stops it.
  Run(RunOptions options, const OpenTask& open, const RunObserver& observer = {});
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  const RunOptions& options() const { return options_; }  ///< with the savings that were chosen
  const RunPlan& plan() const { return plan_; }
  const Task& task() const { return *task_; }

  /// Prepares, trains, observes before, between and after, saves and reports. Returns false when
  /// `observer.step` stopped it: a checkpoint to resume from has been written then. Throws
  /// Error(cancelled) when `observer.progress` did, and as Trainer::run.
  bool run(const RunObserver& observer = {});

  /// Prepares, and measures the seconds of a step of this rank alone. Nothing is written but what
  /// Task::prepare makes; the run cannot go on afterwards.
  double measure_step(const StageProgress& progress = {});

  /// What the run makes: OUT/adapter.safetensors, OUT/model for method "full", or the task's
  /// companion for "none".
  std::filesystem::path result() const;

  /// What the task saves beside it, or, with method "none", alone.
  std::optional<std::filesystem::path> companion() const;

  /// The best step's adapter or model by RunOptions::best; nothing where none is followed.
  std::optional<std::filesystem::path> best() const;

  std::filesystem::path report_file() const { return options_.out / "report.html"; }

  /// In the order of the steps; those from before an interruption, too.
  std::vector<ScoreRow> scores() const;

  double seconds() const { return seconds_; }  ///< of this process's training steps alone

 private:
  const DataParallel& ranks() const { return options_.trainer.data_parallel; }
  bool writes() const { return ranks().writes(); }
  std::int64_t ranks_of_batch() const;
  void open_task(const OpenTask& open);
  void open_within_limit(const OpenTask& open);
  bool try_storage(const OpenTask& open, nn::WeightStorage storage);
  bool take_plan(const MemorySavings& base);
  bool offload(const OpenTask& open, nn::WeightStorage storage);
  MemoryChoices memory_choices() const;
  std::optional<MemoryNeed> known_need(const MemorySavings& savings);
  NeedOf memory_need();
  void take_recorded_savings();
  void build_adapters();
  void make_plan();
  void check_resume() const;
  void check_ranks(const Trainer& trainer, Json settings) const;
  Json settings() const;
  Learners learners() const;
  std::vector<Trainable> trainables() const;
  void find_checkpoint();
  std::unique_ptr<RunLock> take_folder();
  LossFunction loss_function() const;
  bool train_within_memory(Trainer& trainer, RunLog& log, const StepObserver& observer);
  bool train(Trainer& trainer, RunLog& log, const StepObserver& observer);
  void observe(Trainer& trainer, RunLog& log, std::int64_t step);
  void save(Trainer& trainer, const Json& settings) const;
  void save_adapters(const std::filesystem::path& file, std::int64_t steps,
                     const Json& settings) const;
  void follow_best(Trainer& trainer, std::int64_t step);
  Report report(const Trainer& trainer, const Json& settings) const;

  RunOptions options_;  ///< `savings` are chosen here, the others stay as they are
  std::unique_ptr<Task> task_;
  std::optional<AdapterTraining> adapters_;
  RunPlan plan_;
  std::optional<std::filesystem::path> checkpoint_;  ///< that the run resumes from
  std::uint64_t optimizer_bytes_ = 0;                ///< of its state
  Json settings_;  ///< null where Task::prepare finds the value, until it has
  Json initial_;   ///< hash of the adapter that the run starts from
  std::optional<Json> recorded_savings_;  ///< of the run that is resumed
  std::optional<ScoreFile> score_file_;
  std::vector<Score> latest_scores_;
  double seconds_ = 0.0;
};

}  // namespace ringlet::train
