// What a training step keeps for its backward pass, counted: ringlet's side of
// bench/compare_saved.py.
//
//     ringlet_bench_saved UNET_FOLDER METHOD [SIDE]
//
// The step is that of ringlet_bench_train, counted as saved_tensors.h says. Prints one JSON object.

#include <cstdio>
#include <cstdlib>

#include "bench/saved_tensors.h"
#include "bench/unet_training.h"

int main(int argc, char** argv) {
  using namespace ringlet;
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s UNET_FOLDER METHOD [SIDE]\n", argv[0]);
    return 2;
  }
  try {
    bench::UNetTraining training(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 32, false);
    training.loss().backward();  // lays out what is laid out once
    Json counted = bench::count_saved([&training] { return training.loss(); });
    counted["parameters"] = training.adapters.parameter_count();
    std::printf("%s\n", counted.dump().c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
