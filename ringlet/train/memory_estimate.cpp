#include "ringlet/train/memory_estimate.h"

#include <algorithm>
#include <set>
#include <utility>

#include "ringlet/core/memory_use.h"
#include "ringlet/pipeline/offload.h"
#include "ringlet/pipeline/weight_pages.h"

namespace ringlet::train {
namespace {

std::uint64_t whole(double bytes) { return static_cast<std::uint64_t>(bytes); }

std::set<const nn::Layer*> adapted_layers(const adapt::AdapterSet* adapters) {
  std::set<const nn::Layer*> layers;
  if (adapters != nullptr)
    for (const auto& entry : adapters->entries()) layers.insert(entry.target.layer.get());
  return layers;
}

/// The widest copy of a denoiser's weight that is made for a call, with the one that it is rounded
/// to or laid out from.
double widening_bytes(const pipeline::TextToImageModel& model) {
  std::int64_t most = 0;
  for (const auto& [component, network] : model.networks())
    if (network.role == pipeline::NetworkRole::denoiser)
      for (const auto& [name, layer] : network.index.layers)
        if (layer->stored_weight().coded()) most = std::max(most, layer->stored_weight().numel());
  // For fp32 on the CPU larger ones are widened in pieces.
  constexpr std::int64_t kWhole = std::int64_t{8} << 20;
  const pipeline::LoadOptions& load = model.options();
  if (load.device.is_cpu() && load.precision == at::kFloat) most = std::min(most, kWhole);
  return 2.0 * sizeof(float) * static_cast<double>(most);
}

std::uint64_t weight_bytes(const pipeline::TextToImageModel& model, const MemoryRequest& request) {
  const std::set<const nn::Layer*> adapted = adapted_layers(request.adapters);
  const std::uint64_t text =
      request.text ? pipeline::page_bytes(model, pipeline::NetworkRole::text_encoder, adapted) : 0;
  return text + pipeline::page_bytes(model, pipeline::NetworkRole::denoiser, adapted);
}

std::vector<pipeline::StepBlock> step_blocks(const pipeline::TextToImageModel& model,
                                             const MemoryRequest& request) {
  std::vector<pipeline::StepBlock> blocks = model.training_step({.rows = request.rows,
                                                                 .size = request.size,
                                                                 .adapters = request.adapters,
                                                                 .full = request.full,
                                                                 .text = request.text,
                                                                 .controlnet = request.controlnet});
  // Tensors of many sizes come and go: the CPU's allocator keeps some memory free between them.
  constexpr double kBetween = 1.15;
  if (model.options().device.is_cpu())
    for (pipeline::StepBlock& block : blocks)
      for (double* bytes : {&block.before, &block.inside, &block.passing}) *bytes *= kBetween;
  const double widening = widening_bytes(model);
  for (pipeline::StepBlock& block : blocks) block.passing += widening;
  return blocks;
}

std::uint64_t sampling_bytes(const pipeline::TextToImageModel& model,
                             const MemoryRequest& request) {
  if (request.sampled == 0) return 0;
  return whole(model.denoising_bytes(request.size, 2 * request.sampled));  // guided
}

std::uint64_t coding_bytes(const pipeline::TextToImageModel& model, const MemoryRequest& request) {
  double most = model.encoding_bytes(request.size);
  if (request.sampled > 0) most = std::max(most, model.decoding_bytes(request.size));
  return pipeline::page_bytes(model, pipeline::NetworkRole::autoencoder) + whole(most);
}

/// How many bytes the denoiser's layers take more than now, or less, where their weights are kept
/// in another storage than the one that the model was opened with.
double storage_change(const pipeline::TextToImageModel& model, const MemoryRequest& request) {
  const pipeline::LoadOptions& load = model.options();
  if (request.storage == load.storage || request.full) return 0.0;
  double change = 0.0;
  for (const auto& [component, network] : model.networks()) {
    if (network.role != pipeline::NetworkRole::denoiser) continue;
    for (const auto& [name, layer] : network.index.layers) {
      if (dynamic_cast<const nn::EmbeddingLayer*>(layer.get()) != nullptr) continue;
      const at::Tensor& plain = layer->stored_weight().plain();
      const bool here = load.device.is_cpu() || load.keeps_storage_type(load.precision);
      const double each =
          !plain.defined()
              ? nn::bytes_per_number(load.storage)
              : static_cast<double>(here ? plain.element_size() : c10::elementSize(load.precision));
      change += static_cast<double>(layer->stored_weight().numel()) *
                (nn::bytes_per_number(request.storage) - each);
    }
  }
  return change;
}

/// Frozen networks come to a device when they compute: text encoders and autoencoder for a while,
/// the denoiser with the first step, but for its offloaded blocks. Those that learn are parameters.
MemoryNeed device_need(const pipeline::TextToImageModel& model, const MemoryRequest& request,
                       TrainingMemory memory) {
  using pipeline::NetworkRole;
  const double learning = static_cast<double>(memory.learning) +
                          sizeof(float) * static_cast<double>(request.parameters);
  const std::int64_t offloaded = std::max(pipeline::offloaded_blocks(model), request.offloaded);
  const double denoiser = pipeline::weight_bytes(model, NetworkRole::denoiser) +
                          storage_change(model, request) -
                          pipeline::offload_effect(model, offloaded).saved_bytes;
  const double text = request.text ? pipeline::weight_bytes(model, NetworkRole::text_encoder) : 0.0;
  const double coding = (request.sampled > 0 ? denoiser : 0.0) +
                        pipeline::weight_bytes(model, NetworkRole::autoencoder) +
                        static_cast<double>(memory.coding);
  const double sampling = denoiser + static_cast<double>(memory.sampling);
  return {whole(learning + text + denoiser), whole(learning + text + std::max(sampling, coding)),
          std::move(memory.blocks)};
}

/// On the CPU.
MemoryNeed process_need(const pipeline::TextToImageModel& model, const MemoryRequest& request,
                        TrainingMemory memory) {
  const std::uint64_t now = resident_bytes() + memory.program + memory.learning;
  const double weights =
      std::max(0.0, static_cast<double>(memory.weights) + storage_change(model, request));
  const std::uint64_t steps = now + whole(weights);
  return {steps, std::max({peak_resident_bytes(), steps + memory.sampling, now + memory.coding}),
          std::move(memory.blocks)};
}

}  // namespace

std::uint64_t TrainingMemory::step(const nn::RecomputedBlocks& recomputed) const {
  return whole(pipeline::step_peak(blocks, recomputed));
}

std::uint64_t TrainingMemory::sum(const nn::RecomputedBlocks& recomputed) const {
  return program + learning + std::max(weights + std::max(step(recomputed), sampling), coding);
}

TrainingMemory training_memory(const pipeline::TextToImageModel& model,
                               const MemoryRequest& request) {
  const std::uint64_t copies = 1 + (request.average ? 1 : 0);  // the gradient, a moving average
  const auto bytes = sizeof(float) * static_cast<std::uint64_t>(request.parameters);
  return {pipeline::program_bytes(model, /*backward=*/true),
          weight_bytes(model, request),
          copies * bytes + request.optimizer_bytes.value_or(2 * bytes),
          sampling_bytes(model, request),
          coding_bytes(model, request),
          step_blocks(model, request)};
}

MemoryNeed memory_need(const pipeline::TextToImageModel& model, const MemoryRequest& request) {
  TrainingMemory memory = training_memory(model, request);
  return model.options().device.is_cpu() ? process_need(model, request, std::move(memory))
                                         : device_need(model, request, std::move(memory));
}

}  // namespace ringlet::train
