// Training steps of adapters on a U-Net, timed: ringlet's side of bench/compare_train.py.
//
//     ringlet_bench_train UNET_FOLDER METHOD [SIDE] [STEPS] [checkpointing]
//
// UNET_FOLDER is a diffusers "unet" folder, METHOD as for ringlet train; the adapters go onto all
// attention projections. A step is noise, forward, error, backward, clipping and AdamW. Prints one
// JSON object: seconds per step (the first, which warms up, left out) and peak memory, of the
// process or the device. RINGLET_BENCH_DEVICE (cpu), RINGLET_BENCH_PRECISION (fp32) and
// RINGLET_BENCH_STORAGE (as-stored) say where, in what, and how the base is kept.

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "bench/unet_training.h"
#include "ringlet/train/trainer.h"

namespace {

using namespace ringlet;

Json measure(bench::UNetTraining& training, std::int64_t steps) {
  train::TrainerOptions options;
  options.steps = steps + 1;
  options.loss_scaling = training.precision == at::kHalf;
  train::Trainer trainer(
      train::trainables(training.adapters), [&](std::int64_t) { return training.loss(); }, options);
  std::vector<double> seconds;
  trainer.run([&](const train::StepResult& step) {
    if (step.step > 1) seconds.push_back(step.seconds);
    return true;
  });
  return {{"seconds", seconds},
          {"parameters", training.adapters.parameter_count()},
          {"peak_mib", nn::peak_memory(training.device) >> 20}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s UNET_FOLDER METHOD [SIDE] [STEPS] [checkpointing]\n", argv[0]);
    return 2;
  }
  try {
    const auto number = [&](int index, int fallback) {
      return argc > index ? std::atoi(argv[index]) : fallback;
    };
    bench::UNetTraining training(argv[1], argv[2], number(3, 64), argc > 5);
    std::printf("%s\n", measure(training, number(4, 3)).dump().c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
