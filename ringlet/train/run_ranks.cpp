// What a run does for several ranks.
#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "ringlet/nn/torch_errors.h"
#include "ringlet/train/run.h"

namespace ringlet::train {

/// How many ranks share a batch: each has a part, so that n ranks with batches of b compute what
/// one computes with batches of n * b, whatever is drawn for them. Losses that are no mean over
/// examples cannot be divided: there each rank has batches of its own, as by accumulation.
std::int64_t Run::ranks_of_batch() const { return task_->divisible() ? ranks().count : 1; }

/// All ranks are about to do the same.
void Run::check_ranks(const Trainer& trainer, Json settings) const {
  settings["steps"] = options_.trainer.steps;
  settings["checkpoint_every"] = options_.trainer.checkpoint_every;
  settings["steps done, by the checkpoint in `out`"] = trainer.steps_done();
  ranks().check_same(settings, device_of(trainables()));
}

double Run::measure_step(const StageProgress& progress) {
  return nn::with_ringlet_errors("training", [&] {
    constexpr std::int64_t kWarmUp = 1, kMeasured = 5;
    ranks().alone([&] { task_->prepare(learners(), progress); });
    if (adapters_) adapters_->set().attach();
    TrainerOptions loop = options_.trainer;
    loop.data_parallel = {};
    loop.steps = kWarmUp + kMeasured;
    loop.loss_scaling = task_->precision() == at::kHalf;
    loop.micro_batch_parts = options_.savings.parts;
    std::vector<double> seconds;
    Trainer(trainables(), loss_function(), std::move(loop)).run([&](const StepResult& step) {
      seconds.push_back(step.seconds);
      return true;
    });
    const auto middle = seconds.begin() + kWarmUp + kMeasured / 2;
    std::nth_element(seconds.begin() + kWarmUp, middle, seconds.end());
    return *middle;
  });
}

}  // namespace ringlet::train
