// Training steps of adapters on a U-Net, timed: ringlet's side of bench/compare_train.py.
//
//     ringlet_bench_train UNET_FOLDER METHOD [SIDE] [STEPS] [checkpointing]
//
// UNET_FOLDER is a diffusers "unet" folder, METHOD as for ringlet train; the adapters go onto all
// attention projections. A step is noise, forward, error, backward, clipping and AdamW. Prints one
// JSON object: seconds per step (the first, which warms up, left out) and peak resident memory.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/core/json.h"
#include "ringlet/diffusion/schedule.h"
#include "ringlet/models/diffusion/unet.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/train/trainer.h"

namespace {

using namespace ringlet;

/// Highest resident memory so far, in MiB.
long peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::strtol(line.c_str() + 6, nullptr, 10) / 1024;
  return 0;
}

Json measure(const std::filesystem::path& folder, const std::string& method, std::int64_t side,
             std::int64_t steps, bool checkpointing) {
  const auto store = nn::FileStore::open(folder / "diffusion_pytorch_model.safetensors");
  const nn::WeightSource source(store);
  const auto config = models::UNetConfig::from_json(read_json_file(folder / "config.json"),
                                                    (folder / "config.json").string());
  const models::UNet unet(source, config);
  const nn::ModuleIndex index = source.finish();
  index.pack(*store, nn::WeightUse::training);

  const auto targets = adapt::select_targets({{"unet", &index}}, {});
  auto adapters = adapt::AdapterSet::create(adapt::parse_method(method), targets,
                                            adapt::FactorTable(), Random(1));
  adapters.attach();

  const diffusion::NoiseLevel level = diffusion::Schedule({}).level(500);
  const at::Tensor timesteps = at::full({1}, level.timestep);
  const at::Tensor latents = at::randn({1, config.in_channels, side, side});
  const at::Tensor text = at::randn({1, 77, config.levels.front().context_width});
  const auto loss = [&](std::int64_t) {
    const nn::GradientCheckpointing guard(checkpointing);
    const at::Tensor noise = at::randn_like(latents);
    const at::Tensor x = level.alpha * latents + level.sigma * noise;
    return at::mse_loss(unet.forward(x, timesteps, text), noise);
  };
  train::TrainerOptions options;
  options.steps = steps + 1;
  train::Trainer trainer(train::trainables(adapters), loss, options);
  std::vector<double> seconds;
  trainer.run([&](const train::StepReport& step) {
    if (step.step > 1) seconds.push_back(step.seconds);
    return true;
  });
  return {{"seconds", seconds},
          {"parameters", adapters.parameter_count()},
          {"peak_mib", peak_memory()}};
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
    std::printf("%s\n",
                measure(argv[1], argv[2], number(3, 64), number(4, 3), argc > 5).dump().c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
