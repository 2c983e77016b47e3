#include "ringlet/pipeline/weight_pages.h"

#include <utility>

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
    if (prepared != nullptr) bytes += static_cast<std::uint64_t>(prepared->backward_layout_bytes());
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

std::uint64_t program_bytes(const TextToImageModel& model, bool backward) {
  std::set<std::pair<std::int64_t, std::int64_t>> products;
  for (const auto& [component, network] : model.networks()) {
    if (network.role != NetworkRole::denoiser) continue;
    for (const auto& [name, layer] : network.index.layers) {
      const at::IntArrayRef sizes = layer->stored_weight().sizes();
      if (sizes.size() == 2 || (sizes.size() == 4 && sizes[2] == 1))
        products.emplace(sizes[0], sizes[1]);
    }
  }
  constexpr double kMiB = 1 << 20, kCode = 45.0;
  const double each = backward ? 2.2 : 1.1;
  return static_cast<std::uint64_t>((kCode + each * static_cast<double>(products.size())) * kMiB);
}

}  // namespace ringlet::pipeline
