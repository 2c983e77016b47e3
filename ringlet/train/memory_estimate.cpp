#include "ringlet/train/memory_estimate.h"

#include <algorithm>

#include <c10/core/ScalarType.h>

namespace ringlet::train {

std::uint64_t expected_training_bytes(const pipeline::StableDiffusion& model,
                                      std::int64_t parameters, std::int64_t resolution,
                                      std::int64_t rows, bool gradient_checkpointing) {
  double bytes = 0.0;
  for (const auto& component : model.indices())
    for (const auto& entry : component.second.tensors)
      bytes += static_cast<double>(entry.second.nbytes());
  // Gradient, two averages, the value itself (adapters are not among the networks' weights).
  bytes += 4.0 * sizeof(float) * static_cast<double>(parameters);

  // Numbers kept per pixel and channel of a level: by a residual block (inputs of two norms, two
  // activations and two convolutions), and by a transformer block (its norms, attentions and the
  // eightfold feed-forward).
  constexpr double kResidual = 8.0, kTransformer = 34.0;
  const models::UNetConfig& unet = model.unet().config();
  auto side = static_cast<double>(resolution / model.vae().config().downscale());
  double numbers = 0.0, largest = 0.0;
  for (const models::UNetLevel& level : unet.levels) {
    const double each = side * side * static_cast<double>(level.channels);
    const auto down = static_cast<double>(level.layers), up = static_cast<double>(level.layers + 1);
    const auto depth = static_cast<double>(level.transformer_layers);
    double blocks = (down + up) * kResidual;
    blocks += kTransformer * depth *
              ((level.down_attention ? down : 0.0) + (level.up_attention ? up : 0.0));
    numbers += each * blocks;
    largest = std::max(largest, each * blocks);
    side /= 2.0;
  }
  const double width = static_cast<double>(c10::elementSize(model.options().precision));
  return static_cast<std::uint64_t>(bytes + width * static_cast<double>(rows) *
                                                (gradient_checkpointing ? largest : numbers));
}

}  // namespace ringlet::train
