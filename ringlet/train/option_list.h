// The options of training, each described once: limits, help, and what a resumed run must repeat.
#pragma once

#include <string>

#include "ringlet/core/option.h"
#include "ringlet/train/adapter_training.h"
#include "ringlet/train/optimizers.h"
#include "ringlet/train/trainer.h"

namespace ringlet::train {

/// The loop's: steps, accumulation, the rate's schedule and factors, clipping, averages,
/// checkpoints. The peak of the rate and the optimizer, whose defaults depend on other options, are
/// the caller's.
void describe(OptionList& list, TrainerOptions& options);

/// The optimizer's name and numbers; those that are not given are the optimizer's own.
void describe(OptionList& list, std::string& optimizer, OptimizerNumbers& numbers);

/// The adapters' beside the method: budget, layers, factors, dropouts, penalties. `layers` is the
/// help of "targets", `usual_layers` what holds without it.
void describe(OptionList& list, AdapterTrainingOptions& options, const std::string& layers,
              const std::string& usual_layers);

}  // namespace ringlet::train
