#include "ringlet/train/memory_estimate.h"

#include <algorithm>
#include <set>

#include "ringlet/core/memory_use.h"
#include "ringlet/io/mapped_pages.h"
#include "ringlet/nn/kernels.h"
#include "ringlet/pipeline/offload.h"

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

/// Bytes of a network's frozen weights that come into memory when it computes: the pages of a
/// mapped file, but for kernels in whose place there is a layout.
std::uint64_t page_bytes(const pipeline::ModelNetwork& network,
                         const std::set<const nn::Layer*>& adapted) {
  std::uint64_t bytes = 0;
  for (const auto& [name, layer] : network.index.layers) {
    const auto* convolution = dynamic_cast<const nn::Conv2dLayer*>(layer.get());
    const nn::PreparedConv2d* prepared = convolution ? convolution->prepared() : nullptr;
    const bool table = dynamic_cast<const nn::EmbeddingLayer*>(layer.get()) != nullptr;
    const bool read =
        prepared == nullptr || prepared->reads_weight() || adapted.contains(layer.get());
    const at::Tensor& weight = layer->stored_weight().plain();  // codes are resident already
    if (weight.defined() && layer->device().is_cpu() && !table && read &&
        io::is_mapped(weight.const_data_ptr()))
      bytes += weight.nbytes();
  }
  return bytes;
}

std::uint64_t weight_bytes(const pipeline::TextToImageModel& model, const MemoryRequest& request) {
  const std::set<const nn::Layer*> adapted = adapted_layers(request.adapters);
  std::uint64_t bytes = 0;
  for (const auto& [component, network] : model.networks())
    if (network.role == pipeline::NetworkRole::denoiser ||
        (network.role == pipeline::NetworkRole::text_encoder && request.text))
      bytes += page_bytes(network, adapted);
  return bytes;
}

/// The widest copy of a denoiser's weight that is made for a call, with the one that it is rounded
/// from; on the CPU weights are widened in pieces, but for what a kernel reads as a whole.
double widening_bytes(const pipeline::TextToImageModel& model) {
  std::int64_t most = 0;
  for (const auto& [component, network] : model.networks())
    if (network.role == pipeline::NetworkRole::denoiser)
      for (const auto& [name, layer] : network.index.layers)
        if (layer->stored_weight().coded()) most = std::max(most, layer->stored_weight().numel());
  return 2.0 * sizeof(float) * static_cast<double>(most);
}

std::uint64_t step_bytes(const pipeline::TextToImageModel& model, const MemoryRequest& request) {
  // Tensors of many sizes come and go: the allocator keeps some memory free between them.
  constexpr double kBetween = 1.15;
  return whole(widening_bytes(model) +
               kBetween * model.training_step_bytes(
                              {.rows = request.rows,
                               .size = request.size,
                               .adapters = request.adapters,
                               .full = request.full,
                               .text = request.text,
                               .controlnet = request.controlnet,
                               .gradient_checkpointing = request.gradient_checkpointing}));
}

std::uint64_t sampling_bytes(const pipeline::TextToImageModel& model,
                             const MemoryRequest& request) {
  if (request.sampled == 0) return 0;
  return whole(model.denoising_bytes(request.size, 2 * request.sampled));  // guided
}

std::uint64_t coding_bytes(const pipeline::TextToImageModel& model, const MemoryRequest& request) {
  double most = model.encoding_bytes(request.size);
  if (request.sampled > 0) most = std::max(most, model.decoding_bytes(request.size));
  std::uint64_t weights = 0;
  for (const auto& [component, network] : model.networks())
    if (network.role == pipeline::NetworkRole::autoencoder) weights += page_bytes(network, {});
  return weights + whole(most);
}

/// Frozen networks come to a device when they compute: text encoders and autoencoder for a while,
/// the denoiser with the first step, but for its offloaded blocks. Those that learn are parameters.
std::uint64_t device_bytes(const pipeline::TextToImageModel& model, const MemoryRequest& request,
                           const TrainingMemory& memory) {
  using pipeline::NetworkRole;
  double learning = static_cast<double>(memory.learning) +
                    sizeof(float) * static_cast<double>(request.parameters);
  const double denoiser =
      pipeline::weight_bytes(model, NetworkRole::denoiser) -
      pipeline::offload_effect(model, pipeline::offloaded_blocks(model)).saved_bytes;
  const double text = request.text ? pipeline::weight_bytes(model, NetworkRole::text_encoder) : 0.0;
  const double steps =
      denoiser + text + static_cast<double>(std::max(memory.step, memory.sampling));
  const double coding = (request.sampled > 0 ? denoiser : 0.0) + text +
                        pipeline::weight_bytes(model, NetworkRole::autoencoder) +
                        static_cast<double>(memory.coding);
  return whole(learning + std::max(steps, coding));
}

}  // namespace

std::uint64_t TrainingMemory::sum() const {
  return program + learning + std::max(weights + std::max(step, sampling), coding);
}

TrainingMemory training_memory(const pipeline::TextToImageModel& model,
                               const MemoryRequest& request) {
  constexpr std::uint64_t kProgram = 64 * kMebi;
  const std::uint64_t copies = 1 + (request.average ? 1 : 0);  // the gradient, a moving average
  return {kProgram,
          weight_bytes(model, request),
          (copies * sizeof(float) + request.optimizer_bytes) *
              static_cast<std::uint64_t>(request.parameters),
          step_bytes(model, request),
          sampling_bytes(model, request),
          coding_bytes(model, request)};
}

std::uint64_t expected_peak_bytes(const pipeline::TextToImageModel& model,
                                  const MemoryRequest& request) {
  const TrainingMemory memory = training_memory(model, request);
  if (model.options().device.is_cpu())
    return std::max(resident_bytes() + memory.sum(), peak_resident_bytes());
  return device_bytes(model, request, memory);
}

}  // namespace ringlet::train
