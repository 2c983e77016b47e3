// A U-Net of a diffusers folder with adapters on all attention projections, and the loss of a
// training step: what the programs of this folder that train share.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include <ATen/ATen.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/core/json.h"
#include "ringlet/core/option.h"
#include "ringlet/diffusion/schedule.h"
#include "ringlet/models/diffusion/unet.h"
#include "ringlet/nn/device.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/nn/weight_storage.h"
#include "ringlet/nn/weight_store.h"

namespace ringlet::bench {

/// RINGLET_BENCH_DEVICE (cpu), RINGLET_BENCH_PRECISION (fp32), RINGLET_BENCH_STORAGE (as-stored)
/// and RINGLET_BENCH_BATCH (1) say where, in what, how the base is kept, and of how many pictures.
inline std::string variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

inline nn::WeightStorage base_storage() {
  nn::WeightStorage storage = nn::WeightStorage::as_stored;
  choice("RINGLET_BENCH_STORAGE", storage, nn::kWeightStorageNames)
      .read({variable("RINGLET_BENCH_STORAGE", "as-stored")});
  return storage;
}

/// One noise level, random latents and text of 77 tokens.
class UNetTraining {
 public:
  /// `folder` is a diffusers "unet" folder, `side` that of the latents.
  UNetTraining(const std::filesystem::path& folder, const std::string& method, std::int64_t side,
               bool checkpointing)
      : device(nn::select_device(variable("RINGLET_BENCH_DEVICE", "cpu"))),
        precision(nn::select_precision(variable("RINGLET_BENCH_PRECISION", "fp32"), device)),
        checkpointing_(checkpointing),
        store_(nn::FileStore::open(folder / "diffusion_pytorch_model.safetensors")),
        config_(models::UNetConfig::from_json(read_json_file(folder / "config.json"),
                                              (folder / "config.json").string())),
        source_(store_, {.dtype = precision, .device = device, .storage = base_storage()}),
        unet_(source_, config_),
        index_(source_.finish()),
        adapters(make_adapters(method)) {
    adapters.attach();
    const std::int64_t batch = std::stoll(variable("RINGLET_BENCH_BATCH", "1"));
    timesteps_ = at::full({batch}, level_.timestep).to(device);
    latents_ = at::randn({batch, config_.in_channels, side, side}).to(device);
    text_ = at::randn({batch, 77, config_.levels.front().context_width}).to(device, precision);
  }

  /// The mean squared error of the noise that the network says, a scalar that knows its gradient.
  at::Tensor loss() {
    return adapters.pass([this] {
      const nn::GradientCheckpointing guard(checkpointing_);
      const at::Tensor noise = nn::to_device(at::randn(latents_.sizes()), device);
      const at::Tensor x = level_.alpha * latents_ + level_.sigma * noise;
      return at::mse_loss(unet_.forward(x.to(precision), timesteps_, text_).to(at::kFloat), noise);
    });
  }

  const at::Device device;
  const at::ScalarType precision;

 private:
  adapt::AdapterSet make_adapters(const std::string& method) {
    const nn::WeightStorage storage = base_storage();
    const bool narrow = storage == nn::WeightStorage::bf16 || nn::is_coded(storage);
    index_.pack(*store_, narrow ? nn::WeightUse::narrow : nn::WeightUse::training);
    return adapt::AdapterSet::create(adapt::parse_method(method),
                                     adapt::select_targets({{"unet", &index_}}, {}),
                                     adapt::FactorTable(), Random(1));
  }

  const bool checkpointing_;
  const std::shared_ptr<const nn::TensorStore> store_;
  const models::UNetConfig config_;
  const nn::WeightSource source_;
  const models::UNet unet_;
  const nn::ModuleIndex index_;
  const diffusion::NoiseLevel level_ = diffusion::Schedule({}).level(500);
  at::Tensor timesteps_, latents_, text_;

 public:
  adapt::AdapterSet adapters;
};

}  // namespace ringlet::bench
