// One forward pass of a U-Net, timed: ringlet's side of bench/compare.py.
//
//     ringlet_bench_unet UNET_FOLDER [SIDE] [BATCH] [REPEATS]
//
// UNET_FOLDER is a diffusers "unet" folder. Prints one JSON object: seconds per pass, peak resident
// memory, and the speed of a matrix product as a measure of the machine at this moment.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <malloc.h>

#include "ringlet/core/json.h"
#include "ringlet/models/diffusion/unet.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/weight_store.h"

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Highest resident memory so far, in MiB.
long peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::strtol(line.c_str() + 6, nullptr, 10) / 1024;
  return 0;
}

ringlet::Json measure(const std::filesystem::path& folder, std::int64_t side, std::int64_t batch,
                      int repeats) {
  using namespace ringlet;
  const at::NoGradGuard no_grad;
  const auto begin = Clock::now();
  const auto store = nn::FileStore::open(folder / "diffusion_pytorch_model.safetensors");
  const nn::WeightSource source(store);
  const auto config = models::UNetConfig::from_json(read_json_file(folder / "config.json"),
                                                    (folder / "config.json").string());
  const models::UNet unet(source, config);
  source.finish().pack(*store);
  const double load_seconds = seconds_since(begin);

  const at::Tensor latents = at::randn({batch, config.in_channels, side, side});
  const at::Tensor text = at::randn({batch, 77, config.levels.front().context_width});
  const at::Tensor timesteps = at::full({batch}, 500.0);
  unet.forward(latents, timesteps, text);
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    const auto start = Clock::now();
    unet.forward(latents, timesteps, text);
    seconds.push_back(seconds_since(start));
  }
  return {{"load_seconds", load_seconds},
          {"seconds", seconds},
          {"peak_mib", peak_memory()},
          {"matmul_gflops", nn::measure_matmul_speed(at::kFloat)}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s UNET_FOLDER [SIDE] [BATCH] [REPEATS]\n", argv[0]);
    return 2;
  }
  try {
    const auto number = [&](int index, int fallback) {
      return argc > index ? std::atoi(argv[index]) : fallback;
    };
    std::printf("%s\n", measure(argv[1], number(2, 64), number(3, 2), number(4, 3)).dump().c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
