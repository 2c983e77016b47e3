// Options of a training run, whatever it trains.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <c10/core/ScalarType.h>

#include "ringlet/adapt/set/metadata_level.h"
#include "ringlet/nn/weight_storage.h"
#include "ringlet/train/adapter_training.h"
#include "ringlet/train/best_score.h"
#include "ringlet/train/memory_plan.h"
#include "ringlet/train/trainer.h"

namespace ringlet::train {

/// NoWeights is for tasks that train something beside the network.
struct RunOptions : AdapterTrainingOptions {
  std::filesystem::path out;  ///< folder for all that the run writes
  bool resume = false;        ///< from the last checkpoint of `out`, if there is one
  std::uint64_t seed = 0;
  std::int64_t batch_size = 1;     ///< examples at a time, on each rank
  BestScoreOptions best = {};      ///< what is kept as OUT/best, and when to stop
  std::int64_t observe_every = 0;  ///< steps between samples or scores; 0 = before and after only
  TrainerOptions trainer;          ///< checkpoint_folder and settings are the run's own
  std::optional<double> epochs = {};  ///< in place of trainer.steps, rounded up to whole steps
  /// The most bytes that the run may take at a time, of the process on the CPU and otherwise of the
  /// device; 0 = no limit. With one, `savings` are chosen.
  std::uint64_t memory_limit = 0;
  MemorySavings savings;  ///< those of the run that is resumed, where it has some
  /// In what the weights that learn are kept with method "full": fp32, or bf16 with stochastic
  /// rounding.
  at::ScalarType trained_precision = at::kFloat;
  at::ScalarType save_precision = at::kFloat;                     ///< of what is written
  adapt::MetadataLevel metadata = adapt::MetadataLevel::minimum;  ///< of the adapter's file

  bool adapts() const { return method() != nullptr; }
};

/// Everything about the options that is wrong whatever the task. Throws Error(invalid_argument).
void check_options(const RunOptions& options);

/// Refuses a storage of the frozen base where nothing is frozen. Throws Error(invalid_argument).
void check_base_storage(nn::WeightStorage storage, const RunOptions& options);

/// For a plan: ", base in nf4"; "" where it is kept as it is stored.
std::string base_storage_text(nn::WeightStorage storage);

}  // namespace ringlet::train
