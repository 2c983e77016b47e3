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

#include <ATen/ATen.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/core/json.h"
#include "ringlet/core/option.h"
#include "ringlet/diffusion/schedule.h"
#include "ringlet/models/diffusion/unet.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/train/trainer.h"

namespace {

using namespace ringlet;

std::string variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

nn::WeightStorage base_storage() {
  nn::WeightStorage storage = nn::WeightStorage::as_stored;
  choice("RINGLET_BENCH_STORAGE", storage, nn::kWeightStorageNames)
      .read({variable("RINGLET_BENCH_STORAGE", "as-stored")});
  return storage;
}

Json measure(const std::filesystem::path& folder, const std::string& method, std::int64_t side,
             std::int64_t steps, bool checkpointing) {
  const auto store = nn::FileStore::open(folder / "diffusion_pytorch_model.safetensors");
  const at::Device device = nn::select_device(variable("RINGLET_BENCH_DEVICE", "cpu"));
  const at::ScalarType precision =
      nn::select_precision(variable("RINGLET_BENCH_PRECISION", "fp32"), device);
  const nn::WeightStorage storage = base_storage();
  const bool narrow = storage == nn::WeightStorage::bf16 || nn::is_coded(storage);
  const nn::WeightSource source(store, {.dtype = precision, .device = device, .storage = storage});
  const auto config = models::UNetConfig::from_json(read_json_file(folder / "config.json"),
                                                    (folder / "config.json").string());
  const models::UNet unet(source, config);
  const nn::ModuleIndex index = source.finish();
  index.pack(*store, narrow ? nn::WeightUse::narrow : nn::WeightUse::training);

  const auto targets = adapt::select_targets({{"unet", &index}}, {});
  auto adapters = adapt::AdapterSet::create(adapt::parse_method(method), targets,
                                            adapt::FactorTable(), Random(1));
  adapters.attach();

  const diffusion::NoiseLevel level = diffusion::Schedule({}).level(500);
  const at::Tensor timesteps = at::full({1}, level.timestep).to(device);
  const at::Tensor latents = at::randn({1, config.in_channels, side, side}).to(device);
  const at::Tensor text =
      at::randn({1, 77, config.levels.front().context_width}).to(device, precision);
  const auto forward = [&] {
    const nn::GradientCheckpointing guard(checkpointing);
    const at::Tensor noise = nn::to_device(at::randn(latents.sizes()), device);
    const at::Tensor x = level.alpha * latents + level.sigma * noise;
    return at::mse_loss(unet.forward(x.to(precision), timesteps, text).to(at::kFloat), noise);
  };
  const auto loss = [&](std::int64_t) { return adapters.pass(forward); };
  train::TrainerOptions options;
  options.steps = steps + 1;
  options.loss_scaling = precision == at::kHalf;
  train::Trainer trainer(train::trainables(adapters), loss, options);
  std::vector<double> seconds;
  trainer.run([&](const train::StepResult& step) {
    if (step.step > 1) seconds.push_back(step.seconds);
    return true;
  });
  return {{"seconds", seconds},
          {"parameters", adapters.parameter_count()},
          {"peak_mib", nn::peak_memory(device) >> 20}};
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
