#include "ringlet/train/memory_estimate.h"

#include <algorithm>
#include <set>

#include <c10/core/ScalarType.h>

#include "ringlet/core/memory_use.h"
#include "ringlet/io/mapped_pages.h"
#include "ringlet/train/activation_memory.h"

namespace ringlet::train {
namespace {

constexpr std::uint64_t kMebi = std::uint64_t{1} << 20;

std::uint64_t bytes_of(double numbers, std::size_t width) {
  return static_cast<std::uint64_t>(numbers * static_cast<double>(width));
}

std::set<const nn::Layer*> adapted_layers(const adapt::AdapterSet* adapters) {
  std::set<const nn::Layer*> layers;
  if (adapters != nullptr)
    for (const auto& entry : adapters->entries()) layers.insert(entry.target.layer.get());
  return layers;
}

/// A convolution that oneDNN computes from layouts of its own.
const nn::Conv2dLayer* packed(const nn::Layer& layer, at::ScalarType precision) {
  const auto* convolution = dynamic_cast<const nn::Conv2dLayer*>(&layer);
  const bool frozen = !layer.weight().requires_grad() && layer.weight().is_cpu();
  return frozen && precision == at::kFloat ? convolution : nullptr;
}

/// Frozen weights come into memory when they are first used: pages of a mapped file, and of the
/// U-Net's convolutions a second layout.
std::uint64_t weight_bytes(const pipeline::StableDiffusion& model,
                           const std::set<const nn::Layer*>& adapted) {
  const at::ScalarType precision = model.options().precision;
  std::uint64_t bytes = 0;
  for (const auto& [component, index] : model.indices())
    for (const auto& [name, layer] : index.layers) {
      const at::Tensor& weight = layer->weight();
      const nn::Conv2dLayer* convolution = packed(*layer, precision);
      const bool table = dynamic_cast<const nn::EmbeddingLayer*>(layer.get()) != nullptr;
      // Only convolutions of stride 1 have a layout of their own for the backward pass.
      const bool laid_out =
          convolution != nullptr && (component != "unet" || convolution->options().stride == 1);
      const bool read = !laid_out || adapted.contains(layer.get());
      if (weight.is_cpu() && !table && read && io::is_mapped(weight.const_data_ptr()))
        bytes += weight.nbytes();
      if (laid_out && component == "unet")
        bytes += bytes_of(static_cast<double>(weight.numel()), sizeof(float));
    }
  return bytes;
}

std::uint64_t step_bytes(const pipeline::StableDiffusion& model, const MemoryRequest& request) {
  const auto width = c10::elementSize(model.options().precision);
  PassShape shape{.rows = request.rows,
                  .latents = request.size.divided_by(model.vae().config().downscale()),
                  .text_length = model.text().front().encoder.config().max_position_embeddings,
                  .trained = request.full,
                  .gradient_checkpointing = request.gradient_checkpointing};
  PassMemory pass = unet_pass(model.unet().config(), shape, request.adapters);
  const auto add = [&pass](const PassMemory& more) {
    pass.kept += more.kept;
    pass.passing = std::max(pass.passing, more.passing);
  };
  if (request.controlnet) add(controlnet_pass(model.unet().config(), shape));
  if (request.text)
    for (const pipeline::TextStage& stage : model.text())
      add(text_pass(stage.encoder.config(), shape));
  // Tensors of many sizes come and go: the allocator keeps some memory free between them.
  constexpr double kBetween = 1.15;
  return bytes_of(kBetween * (pass.kept + pass.passing), width);
}

std::uint64_t picture_bytes(const pipeline::StableDiffusion& model, const MemoryRequest& request) {
  const models::VaeConfig& vae = model.vae().config();
  // The autoencoder always computes in fp32.
  std::uint64_t most = bytes_of(vae_encoding(vae, request.size), sizeof(float));
  if (request.sampled == 0) return most;
  most = std::max(most, bytes_of(vae_decoding(vae, 1, request.size), sizeof(float)));
  const PassShape guided{.rows = 2 * request.sampled,
                         .latents = request.size.divided_by(vae.downscale())};
  return std::max(most, bytes_of(unet_inference(model.unet().config(), guided),
                                 c10::elementSize(model.options().precision)));
}

}  // namespace

std::uint64_t TrainingMemory::sum() const {
  return program + weights + learning + std::max(step, pictures);
}

TrainingMemory training_memory(const pipeline::StableDiffusion& model,
                               const MemoryRequest& request) {
  constexpr std::uint64_t kProgram = 64 * kMebi;
  const std::uint64_t copies = 1 + (request.average ? 1 : 0);  // the gradient, a moving average
  return {kProgram, weight_bytes(model, adapted_layers(request.adapters)),
          (copies * sizeof(float) + request.optimizer_bytes) *
              static_cast<std::uint64_t>(request.parameters),
          step_bytes(model, request), picture_bytes(model, request)};
}

std::uint64_t expected_peak_bytes(const pipeline::StableDiffusion& model,
                                  const MemoryRequest& request) {
  const TrainingMemory memory = training_memory(model, request);
  if (model.options().device.is_cpu())
    return std::max(resident_bytes() + memory.sum(), peak_resident_bytes());
  std::uint64_t there = sizeof(float) * static_cast<std::uint64_t>(request.parameters);
  for (const auto& [component, index] : model.indices())
    for (const auto& [name, tensor] : index.tensors) there += tensor.nbytes();
  return there + memory.sum() - memory.program;
}

}  // namespace ringlet::train
