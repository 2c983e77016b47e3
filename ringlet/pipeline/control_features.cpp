#include "ringlet/pipeline/control_features.h"

#include <algorithm>
#include <array>
#include <bit>

#include <ATen/ops/zeros.h>

#include "ringlet/core/error.h"

namespace ringlet::pipeline {
namespace {

constexpr const char* kChannels = "channels.weight";

[[noreturn]] void does_not_fit(const std::string& where, const std::string& what,
                               const FirstLayer& layer) {
  throw Error(ErrorCode::mismatch, where, what + ", and this model is " + layer.model,
              "use an adapter that was trained on this kind of model");
}

/// The channels of a file's encoder, in the order in which pictures pass them.
std::vector<std::int64_t> channels_in(const std::map<std::string, at::Tensor>& tensors,
                                      const std::string& where) {
  std::vector<std::int64_t> channels;
  const auto add = [&](const std::string& name) {
    const auto found = tensors.find(name);
    if (found == tensors.end() || found->second.dim() != 4 || found->second.numel() == 0)
      return false;
    channels.push_back(found->second.size(0));
    return true;
  };
  if (!add("conv_in.weight"))
    throw Error(ErrorCode::mismatch, where, "its control encoder has no \"conv_in.weight\"",
                "the file is damaged");
  for (int block = 1; add("blocks." + std::to_string(block) + ".weight");) block += 2;
  return channels;
}

}  // namespace

std::optional<at::Tensor> ControlStart::find(const std::string& name, const nn::Shape& shape,
                                             const nn::Init& init) const {
  if (const auto own = copied_.find(name); own != copied_.end())
    return own->second.detach().clone();
  const bool last = name.starts_with("controlnet_down_blocks.") ||
                    name.starts_with("controlnet_mid_block.") || name == kChannels ||
                    name.find("conv_out.") != std::string::npos;
  return last ? at::zeros(shape) : random_.find(name, shape, init);
}

std::vector<std::int64_t> encoder_channels(std::int64_t downscale, const std::string& where) {
  constexpr std::array<std::int64_t, 4> kPublished = {16, 32, 96, 256};
  if (downscale < 2 || !std::has_single_bit(static_cast<std::uint64_t>(downscale)))
    throw Error(
        ErrorCode::invalid_argument, where,
        "its first features are " + std::to_string(downscale) + " times smaller than pictures",
        "control networks halve pictures: 2, 4, 8, … times");
  const auto halvings =
      static_cast<std::size_t>(std::countr_zero(static_cast<std::uint64_t>(downscale)));
  std::vector<std::int64_t> channels;
  for (std::size_t i = 0; i <= halvings; ++i)
    channels.push_back(kPublished[std::min(i, kPublished.size() - 1)]);
  return channels;
}

bool FirstLayer::fits(const FirstLayer& other) const {
  return downscale == other.downscale && latent_channels == other.latent_channels &&
         kernel == other.kernel && stride == other.stride && width == other.width;
}

std::unique_ptr<ControlFeatures> ControlFeatures::made(Network network,
                                                       const nn::WeightSource& source,
                                                       const FirstLayer& layer) {
  // Not make_unique: the constructor is private.
  return std::unique_ptr<ControlFeatures>(
      new ControlFeatures(std::move(network), source.finish(), layer));
}

std::unique_ptr<ControlFeatures> ControlFeatures::create(ControlKind kind, const FirstLayer& layer,
                                                         at::Device device, std::uint64_t seed,
                                                         const std::string& where) {
  const nn::WeightSource source(
      std::make_shared<ControlStart>(std::map<std::string, at::Tensor>{}, seed),
      {.device = device, .trainable = true});
  switch (kind) {
    case ControlKind::encoder:
      return made(models::ControlEmbedding(
                      source, encoder_channels(layer.downscale * layer.stride, where), layer.width),
                  source, layer);
    case ControlKind::channels:
      return made(models::ControlChannels(source, layer.latent_channels, layer.width, layer.kernel,
                                          layer.stride),
                  source, layer);
    case ControlKind::controlnet:
      break;
  }
  throw Error(
      ErrorCode::unsupported, Field("control_network"),
      "ControlNets are trained for Stable Diffusion 1, 2 and XL, and this model is " + layer.model,
      "use `control_network=encoder` or `control_network=channels`");
}

std::unique_ptr<ControlFeatures> ControlFeatures::from_tensors(
    const std::map<std::string, at::Tensor>& tensors, const FirstLayer& layer, at::Device device,
    const std::string& where) {
  const nn::WeightSource source(std::make_shared<nn::MapStore>(tensors, where), {.device = device});
  if (const auto wide = tensors.find(kChannels); wide != tensors.end()) {
    const nn::Shape own = {layer.width, layer.latent_channels, layer.kernel, layer.kernel};
    if (wide->second.sizes() != at::IntArrayRef(own))
      does_not_fit(where, "its control channels are for another first layer", layer);
    return made(models::ControlChannels(source, layer.latent_channels, layer.width, layer.kernel,
                                        layer.stride),
                source, layer);
  }
  const std::vector<std::int64_t> channels = channels_in(tensors, where);
  const auto halvings = static_cast<std::int64_t>(channels.size()) - 1;
  if (std::int64_t{1} << halvings != layer.downscale * layer.stride)
    does_not_fit(where,
                 "its control encoder halves pictures " + std::to_string(halvings) +
                     " times, which does not give this model's latents",
                 layer);
  return made(models::ControlEmbedding(source, channels, layer.width), source, layer);
}

ControlKind ControlFeatures::kind() const {
  return std::holds_alternative<models::ControlEmbedding>(network_) ? ControlKind::encoder
                                                                    : ControlKind::channels;
}

void ControlFeatures::save(const std::filesystem::path& folder, at::ScalarType) const {
  throw Error(ErrorCode::invalid_argument, folder.string(),
              "this control network is saved in the adapter's file");
}

at::Tensor ControlFeatures::operator()(const at::Tensor& pictures, const at::Tensor& x) const {
  const auto type = index_.tensors.begin()->second.scalar_type();
  const at::Tensor seen = pictures.to(x.device(), type);
  return std::visit([&](const auto& network) { return network.forward(seen); }, network_)
      .to(x.scalar_type());
}

at::Tensor control_features(const ControlInput& control, const FirstLayer& layer,
                            const at::Tensor& x) {
  const auto* network = dynamic_cast<const ControlFeatures*>(&control.network);
  if (network == nullptr || !network->layer().fits(layer))
    throw Error(ErrorCode::mismatch, "control",
                "the control network was made for " +
                    (network == nullptr ? "another kind of model" : network->layer().model) +
                    ", and this model is " + layer.model);
  return (*network)(control.pictures, x) * control.strength;
}

at::Tensor control_tokens(const ControlInput* control, const FirstLayer& layer,
                          const at::Tensor& x) {
  if (control == nullptr) return {};
  return control_features(*control, layer, x).flatten(2).transpose(1, 2);
}

}  // namespace ringlet::pipeline
