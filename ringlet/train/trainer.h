// The training loop: one readable step, and everything around it that must not lose work.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/train/checkpoint.h"
#include "ringlet/train/data_parallel.h"
#include "ringlet/train/learning_rate.h"
#include "ringlet/train/loss_scale.h"
#include "ringlet/train/optimizers.h"

namespace ringlet::train {

/// The loss of one micro-batch, a scalar that knows its gradient. The number of the micro-batch,
/// counted from the start of the run, is all that its data and noise may depend on: that makes a
/// resumed run equal to an uninterrupted one. Where micro-batches have parts it is the number of
/// the part, and the result that part's share: shares of a micro-batch add up to its loss.
using LossFunction = std::function<at::Tensor(std::int64_t micro_batch)>;

/// Factors on the learning rate, of the parameters whose full names a pattern matches (see
/// adapt::TargetOptions); of several that match, the last counts.
using RateFactors = std::vector<std::pair<std::string, double>>;

struct TrainerOptions {
  std::int64_t steps = 1000;
  std::int64_t gradient_accumulation = 1;  ///< micro-batches per step, on each rank
  std::int64_t micro_batch_parts = 1;      ///< see LossFunction; changes results by rounding alone
  double clip_norm = 1.0;                  ///< largest norm of the whole gradient; 0 = no limit
  LearningRate learning_rate = {};
  RateFactors rate_factors = {};
  RateFactors part_rates = {};   ///< peaks of the rate by pattern, in place of the common one
  double lora_plus_ratio = 1.0;  ///< LoRA+: see part_rates.h
  OptimizerSpec optimizer = adamw();
  DataParallel data_parallel = {};
  double ema_decay = 0.0;             ///< 0 = no moving average of the parameters
  std::int64_t checkpoint_every = 0;  ///< steps; 0 = only when stopped
  int keep_checkpoints = 2;
  std::filesystem::path checkpoint_folder = {};  ///< empty = none are written
  Json settings = Json::object();                ///< checked on resume: see Trainer::resume
  /// What is known of a micro-batch (as LossFunction counts them) whose loss is not finite, for the
  /// messages about it: its examples, the layer where it begins. May be empty.
  std::function<std::string(std::int64_t micro_batch)> explain_not_finite = {};
  /// For losses that are computed in fp16: see loss_scale.h.
  bool loss_scaling = false;
  /// Choose the number of LibTorch's threads when the run starts, or take that of the checkpoint:
  /// see thread_choice.h. Otherwise it is left as it is.
  bool choose_threads = false;
  std::function<void()> after_update = {};  ///< changes parameters once more: limits of norms
};

struct StepResult {
  std::int64_t step;  ///< steps done, counted from 1
  double loss;        ///< mean over the micro-batches of all ranks
  double learning_rate;
  double gradient_norm;  ///< before clipping
  double seconds;        ///< of this step
  bool skipped;          ///< loss or gradient was not finite: no update was made
  /// Skipped because the loss scale was too high, and is lower now: the loss itself was finite.
  bool scaled_down = false;
  std::string problem = {};  ///< what was not finite, of a step that was skipped for it
};

/// Called after every step, before its checkpoint: what a checkpoint counts as done has been
/// observed. Returning false stops the run (with a checkpoint); of several ranks, where one of them
/// does, all of them after the next step.
using StepObserver = std::function<bool(const StepResult&)>;

/// What a resumed run must find unchanged of the options.
Json settings_of(const TrainerOptions& options);

/// Error(mismatch) that lists the settings of a checkpoint which are others now. What the
/// checkpoint does not know, because an earlier ringlet wrote it, is only a warning. Settings that
/// earlier versions wrote as numbers or not at all are brought up to date first.
void check_settings(const Json& before, const Json& now, const std::string& where);

class Trainer {
 public:
  /// Throws as with_rates, and Error(invalid_argument) for ranks that make no sense.
  Trainer(std::vector<Trainable> parameters, LossFunction loss, TrainerOptions options);

  /// Resumes from a checkpoint. Throws Error(mismatch) that lists the settings which differ from
  /// the checkpoint's ("steps" may grow), or names a tensor that does not fit; nothing is changed.
  void resume(const std::filesystem::path& checkpoint);

  /// Runs to the last step. Returns true when it was reached, false when `observe` stopped it.
  /// Throws Error(non_finite) after ten steps in a row without a finite loss and gradient; the
  /// parameters are then those of the last good step, and a checkpoint holds them. `afterwards` is
  /// called with each step that does not stop the run, after its checkpoint: work that may fail.
  /// Whatever else goes wrong, in the loss and the observers too, leaves as an Error.
  bool run(const StepObserver& observe = {},
           const std::function<void(std::int64_t step)>& afterwards = {});

  /// A checkpoint after the step that is under way or comes next; an observer may ask for it.
  void ask_for_checkpoint() { save_asked_ = true; }

  /// Ends run() after the present step as if it were the last one: from its callbacks, with one
  /// rank.
  void finish() { finished_ = true; }

  std::int64_t steps_done() const { return step_; }
  std::int64_t skipped() const { return skipped_; }

  /// Exchanges the parameters with their moving averages, or with what the optimiser shows instead
  /// of them (Optimizer::shown_values); calling it twice restores both. Without either it does
  /// nothing. Moving averages are those of what the optimiser shows.
  void swap_averages();

 private:
  bool run_steps(const StepObserver& observe, const std::function<void(std::int64_t)>& afterwards);
  StepResult step_with_others();
  bool stops(bool proceeds);
  StepResult train_step();
  std::vector<at::Tensor> accumulate_gradients();
  StepResult measure(const std::vector<at::Tensor>& losses);
  void reduce(double& loss);
  std::int64_t number_of(std::int64_t micro_batch_part) const;
  std::string not_finite(const std::vector<at::Tensor>& losses) const;
  void report_skipped(const StepResult& report) const;
  void choose_threads();
  void update_averages();
  std::map<std::string, at::Tensor> state_tensors() const;
  std::filesystem::path save() const;
  std::filesystem::path save_state() const;

  LossFunction loss_;
  TrainerOptions options_;
  std::unique_ptr<Optimizer> optimizer_;
  LossScale loss_scale_;
  std::vector<at::Tensor> averages_;
  std::vector<at::Tensor> hidden_;  ///< the parameters, while others are in their place
  std::int64_t step_ = 0;
  std::int64_t skipped_ = 0;
  int threads_ = 0;                             ///< of the checkpoint; 0 = none
  bool wants_stop_ = false, all_stop_ = false;  ///< of this rank, and of any
  bool finished_ = false;
  bool save_asked_ = false;
};

/// While it lives, the parameters are their moving averages: to measure and to save.
class AveragedParameters {
 public:
  explicit AveragedParameters(Trainer& trainer) : trainer_(trainer) { trainer_.swap_averages(); }
  ~AveragedParameters() { trainer_.swap_averages(); }
  AveragedParameters(const AveragedParameters&) = delete;
  AveragedParameters& operator=(const AveragedParameters&) = delete;

 private:
  Trainer& trainer_;
};

}  // namespace ringlet::train
