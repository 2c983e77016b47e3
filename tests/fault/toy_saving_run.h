// A run that takes milliseconds and saves after every step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ringlet/train/trainer.h"
#include "tests/tiny_training.h"

namespace ringlet::train {

inline constexpr std::int64_t kToySteps = 6;

struct ToySavingRun {
  explicit ToySavingRun(const std::filesystem::path& folder) {
    options.steps = kToySteps;
    options.learning_rate.peak = 0.1;
    options.ema_decay = 0.9;
    options.checkpoint_every = 1;
    options.checkpoint_folder = folder;
  }
  Trainer make() const {
    return {parameters,
            [this](std::int64_t n) {
              const at::Tensor goal = golden::uniform(std::to_string(n), {300});
              return (parameters[0].value - goal).square().mean();
            },
            options};
  }
  std::vector<Trainable> parameters = {trainable("w", {300})};
  TrainerOptions options = {};
};

/// The parameters after the last step of a run that nothing has interrupted.
inline const std::vector<at::Tensor>& toy_result() {
  static const std::vector<at::Tensor> values = [] {
    const ToySavingRun run({});
    Trainer trainer = run.make();
    trainer.run();
    return values_of(run.parameters);
  }();
  return values;
}

/// Goes on from the newest whole checkpoint to the end; returns the step that it was of, or -1 when
/// the result is another one.
inline std::int64_t resume_toy(const std::filesystem::path& folder) {
  const ToySavingRun run(folder);
  Trainer trainer = run.make();
  std::int64_t step = 0;
  if (const auto latest = CheckpointFolder(folder, 2).latest()) {
    trainer.resume(*latest);
    step = trainer.steps_done();
  }
  if (!trainer.run()) return -1;
  return same_bits(values_of(run.parameters), toy_result()) ? step : -1;
}

}  // namespace ringlet::train
