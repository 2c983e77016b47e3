#include "ringlet/pipeline/weight_pages.h"

#include "ringlet/io/mapped_pages.h"
#include "ringlet/nn/kernels.h"

namespace ringlet::pipeline {

std::uint64_t page_bytes(const ModelNetwork& network, const std::set<const nn::Layer*>& adapted) {
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

std::uint64_t page_bytes(const TextToImageModel& model, NetworkRole role,
                         const std::set<const nn::Layer*>& adapted) {
  std::uint64_t bytes = 0;
  for (const auto& [component, network] : model.networks())
    if (network.role == role) bytes += page_bytes(network, adapted);
  return bytes;
}

}  // namespace ringlet::pipeline
