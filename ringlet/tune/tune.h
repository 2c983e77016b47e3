// Fine-tuning of any network that a task knows: choose layers, insert adapters, train them, keep
// the rest frozen, evaluate.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringlet/train/adapter_training.h"
#include "ringlet/train/run_log.h"
#include "ringlet/train/trainer.h"
#include "ringlet/tune/task.h"

namespace ringlet::tune {

struct TuneOptions : train::AdapterTrainingOptions {
  std::string task;
  TaskOptions examples;
  std::filesystem::path out;
  bool resume = false;
  std::uint64_t seed = 0;
  std::int64_t batch_size = 16;
  std::int64_t evaluate_every = 0;  ///< steps; 0 = only before and after
  train::TrainerOptions trainer;
  at::ScalarType save_precision = at::kFloat;
};

struct TunePlan {
  std::string network;  ///< Task::description
  std::size_t examples = 0, held_out = 0;
  std::string method;
  std::size_t layers = 0;      ///< adapted ones; 0 for "full"
  std::size_t new_layers = 0;  ///< of them, those that learn as they are
  std::vector<adapt::BudgetRow> budget;
  std::int64_t parameters = 0;
  double epochs = 0.0;
  std::string optimizer;
  std::int64_t first_step = 0;
};

/// The scores at one step.
struct ScoreRow {
  std::int64_t step = 0;
  std::vector<Score> scores;
};

class Tune {
 public:
  /// Opens the task and builds the adapters; writes nothing. Throws Error for everything that can
  /// be known to be wrong.
  explicit Tune(TuneOptions options);

  const TunePlan& plan() const { return plan_; }

  /// Trains, measures before and after (and on the way), writes OUT/adapter.safetensors or
  /// OUT/model, scores.csv and report.html. Returns false when the observer stopped it.
  bool run(const train::StepObserver& observer = {});

  const std::vector<ScoreRow>& scores() const { return scores_; }  ///< in the order of the steps
  double seconds() const { return seconds_; }                      ///< of training alone
  std::filesystem::path result() const;

 private:
  void prepare();
  bool run_stages(const train::StepObserver& observer);
  void build_adapters();
  void make_plan();
  void check_pictures();
  std::vector<train::Trainable> trainables() const;
  Json settings() const;
  at::Tensor loss(std::int64_t micro_batch) const;
  void measure(train::Trainer& trainer, std::int64_t step);
  bool train(train::Trainer& trainer, train::RunLog& log, const train::StepObserver& observer);
  void save_result(train::Trainer& trainer) const;
  void save_model() const;
  train::Report report(const train::Trainer& trainer) const;

  TuneOptions options_;
  std::unique_ptr<Task> task_;
  std::optional<train::AdapterTraining> adapters_;
  TunePlan plan_;
  std::vector<ScoreRow> scores_;
  double seconds_ = 0.0;
  std::string picture_contents_;  ///< a hash; "" without pictures
};

}  // namespace ringlet::tune
