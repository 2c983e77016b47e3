// What every verb that trains has in common: options of the method, the loop and the output, and
// how a run is followed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "console.h"
#include "nodes_plan.h"
#include "options.h"
#include "ringlet/core/option.h"
#include "ringlet/train/adapter_training.h"
#include "ringlet/train/option_list.h"
#include "ringlet/train/process_group.h"
#include "ringlet/train/run_options.h"
#include "ringlet/train/trainer.h"

namespace ringlet::app {

/// The words of the command line; translate() brings them into the library's terms.
struct TrainingOptions {
  std::string method = "tlora", optimizer = "adamw";
  train::OptimizerNumbers numbers;
  std::optional<double> learning_rate;
  std::optional<std::uint64_t> seed;
  std::uint64_t memory_limit = 0;
  bool dry_run = false;
  double rank_timeout = 600.0;                 ///< seconds
  std::shared_ptr<train::ProcessGroup> ranks;  ///< null where this is a process of its own
  NodesPlanOptions nodes_plan;

  void add_method(OptionList& list, train::AdapterTrainingOptions& adapters,
                  const char* method_help, const char* layers, const char* usual_layers);
  void add_loop(OptionList& list, train::RunOptions& run, const char* batch_help);
  void add_output(OptionList& list, train::RunOptions& run);

  /// Refuses --steps beside --epochs. Throws Error(invalid_argument).
  static void check_given(const CLI::App& app, const train::RunOptions& run);

  /// Reads the method and the optimizer, and chooses what was not given: the rate, and the seed of
  /// the run that is resumed or a random one. Joins the ranks that were started together, which
  /// have rank 0's seed and share the processors and GPUs. Throws Error(invalid_argument), and as
  /// join_ranks.
  void translate(train::RunOptions& run, CommonOptions& common);

  /// By --optimizer, with the numbers that were given. Throws Error(invalid_argument).
  train::OptimizerSpec chosen_optimizer() const;
};

/// A line of the plan that is shown before a run, on stderr.
void plan_line(const char* what, const std::string& text);

/// The lines that all plans have: the method, how a budget was spent, the learning rate.
void show_method(const std::string& method, std::size_t layers,
                 const std::vector<adapt::BudgetRow>& budget, std::int64_t parameters);
/// The most memory that the run is expected to take, as TrainProgress shows it.
void show_memory(std::uint64_t expected_bytes, std::uint64_t limit);
/// What is done to stay within a limit, and what it costs; nothing where nothing is.
void show_savings(const train::MemorySavings& savings, double extra_work);
void show_optimizer(const train::OptimizerSpec& optimizer);
void show_learning_rate(const train::LearningRate& rate, std::int64_t steps);

/// Bars for the stages before training, then one with the loss. Both return false after an
/// interrupt.
class TrainProgress {
 public:
  TrainProgress(bool silent, std::int64_t steps_left, c10::Device device)
      : silent_(silent), left_(static_cast<std::size_t>(steps_left)), device_(device) {}

  bool stage(const std::string& name, std::size_t total);
  bool step(const train::StepResult& result);

 private:
  bool silent_;
  std::size_t left_;
  c10::Device device_;  ///< whose memory is shown
  std::string stage_;
  std::optional<Progress> bar_;
  double loss_ = 0.0;
};

}  // namespace ringlet::app
