#include "ringlet/train/memory_estimate.h"

#include <algorithm>
#include <set>

#include "ringlet/core/memory_use.h"
#include "ringlet/io/mapped_pages.h"

namespace ringlet::train {
namespace {

constexpr std::uint64_t kMebi = std::uint64_t{1} << 20;

std::uint64_t whole(double bytes) { return static_cast<std::uint64_t>(bytes); }

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
/// denoiser's convolutions a second layout.
std::uint64_t weight_bytes(const pipeline::TextToImageModel& model,
                           const std::set<const nn::Layer*>& adapted) {
  const at::ScalarType precision = model.options().precision;
  std::uint64_t bytes = 0;
  for (const auto& [component, network] : model.networks()) {
    const bool denoiser = network.role == pipeline::NetworkRole::denoiser;
    for (const auto& [name, layer] : network.index.layers) {
      const at::Tensor& weight = layer->weight();
      const nn::Conv2dLayer* convolution = packed(*layer, precision);
      const bool table = dynamic_cast<const nn::EmbeddingLayer*>(layer.get()) != nullptr;
      // Only convolutions of stride 1 have a layout of their own for the backward pass.
      const bool laid_out =
          convolution != nullptr && (!denoiser || convolution->options().stride == 1);
      const bool read = !laid_out || adapted.contains(layer.get());
      if (weight.is_cpu() && !table && read && io::is_mapped(weight.const_data_ptr()))
        bytes += weight.nbytes();
      if (laid_out && denoiser) bytes += static_cast<std::uint64_t>(weight.numel()) * sizeof(float);
    }
  }
  return bytes;
}

std::uint64_t step_bytes(const pipeline::TextToImageModel& model, const MemoryRequest& request) {
  // Tensors of many sizes come and go: the allocator keeps some memory free between them.
  constexpr double kBetween = 1.15;
  return whole(kBetween * model.training_step_bytes(
                              {.rows = request.rows,
                               .size = request.size,
                               .adapters = request.adapters,
                               .full = request.full,
                               .text = request.text,
                               .controlnet = request.controlnet,
                               .gradient_checkpointing = request.gradient_checkpointing}));
}

std::uint64_t picture_bytes(const pipeline::TextToImageModel& model, const MemoryRequest& request) {
  double most = model.encoding_bytes(request.size);
  if (request.sampled > 0) {
    most = std::max(most, model.decoding_bytes(request.size));
    most = std::max(most, model.denoising_bytes(request.size, 2 * request.sampled));  // guided
  }
  return whole(most);
}

}  // namespace

std::uint64_t TrainingMemory::sum() const {
  return program + weights + learning + std::max(step, pictures);
}

TrainingMemory training_memory(const pipeline::TextToImageModel& model,
                               const MemoryRequest& request) {
  constexpr std::uint64_t kProgram = 64 * kMebi;
  const std::uint64_t copies = 1 + (request.average ? 1 : 0);  // the gradient, a moving average
  return {kProgram, weight_bytes(model, adapted_layers(request.adapters)),
          (copies * sizeof(float) + request.optimizer_bytes) *
              static_cast<std::uint64_t>(request.parameters),
          step_bytes(model, request), picture_bytes(model, request)};
}

std::uint64_t expected_peak_bytes(const pipeline::TextToImageModel& model,
                                  const MemoryRequest& request) {
  const TrainingMemory memory = training_memory(model, request);
  if (model.options().device.is_cpu())
    return std::max(resident_bytes() + memory.sum(), peak_resident_bytes());
  std::uint64_t there = sizeof(float) * static_cast<std::uint64_t>(request.parameters);
  for (const auto& [component, network] : model.networks())
    for (const auto& [name, tensor] : network.index.tensors) there += tensor.nbytes();
  return there + memory.sum() - memory.program;
}

}  // namespace ringlet::train
