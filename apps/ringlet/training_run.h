// How verbs that train carry out a run.
#pragma once

#include "options.h"
#include "ringlet/train/run.h"
#include "training_options.h"

namespace ringlet::app {

/// Opens the run, shows its plan on stderr and, unless this is a dry run, executes it and prints
/// what it made on stdout. The plan's JSON holds the values of `list`, too. Returns the exit
/// status; throws as train::Run, and Error(cancelled) after an interrupt.
int carry_out(const train::RunOptions& options, const train::OpenTask& task,
              const TrainingOptions& words, const CommonOptions& common, const OptionList& list);

}  // namespace ringlet::app
