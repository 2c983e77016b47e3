// Control networks whose output is added once, to a denoiser's first features: the small encoder,
// and more input channels of the first layer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/models/diffusion/control_channels.h"
#include "ringlet/models/diffusion/control_embedding.h"
#include "ringlet/nn/weight_source.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::pipeline {

/// A denoiser's first layer, which makes features of latents.
struct FirstLayer {
  std::string model;                 ///< the model's kind, for messages
  std::int64_t downscale = 0;        ///< pixels along a side of a latent
  std::int64_t latent_channels = 0;  ///< of the autoencoder
  std::int64_t kernel = 0;           ///< latents along a side of what a feature sees
  std::int64_t stride = 0;           ///< latents from feature to feature
  std::int64_t width = 0;            ///< of the features

  /// Whether control networks of the one fit the other.
  bool fits(const FirstLayer& other) const;
};

class ControlFeatures final : public ControlNetwork {
 public:
  /// A new encoder, or channels, that add nothing yet. Throws Error(invalid_argument) where the
  /// encoder cannot halve pictures to features, and Error(unsupported) for a ControlNet.
  static std::unique_ptr<ControlFeatures> create(ControlKind kind, const FirstLayer& layer,
                                                 at::Device device, std::uint64_t seed,
                                                 const std::string& where);

  /// Of an adapter file; the names say which of the two it is. Throws Error(mismatch) that names
  /// what is missing or does not fit.
  static std::unique_ptr<ControlFeatures> from_tensors(
      const std::map<std::string, at::Tensor>& tensors, const FirstLayer& layer, at::Device device,
      const std::string& where);

  ControlKind kind() const override;
  const std::map<std::string, at::Tensor>& tensors() const override { return index_.tensors; }

  /// Throws Error(invalid_argument): adapter files hold these networks.
  void save(const std::filesystem::path& folder, at::ScalarType storage) const override;

  const FirstLayer& layer() const { return layer_; }

  /// [B or 1, width, rows, columns], what is added to the features of latents like `x`: in its
  /// type, on its device. `pictures` are ControlInput's.
  at::Tensor operator()(const at::Tensor& pictures, const at::Tensor& x) const;

 private:
  using Network = std::variant<models::ControlEmbedding, models::ControlChannels>;
  ControlFeatures(Network network, nn::ModuleIndex index, FirstLayer layer)
      : network_(std::move(network)), index_(std::move(index)), layer_(std::move(layer)) {}

  static std::unique_ptr<ControlFeatures> made(Network network, const nn::WeightSource& source,
                                               const FirstLayer& layer);

  Network network_;
  nn::ModuleIndex index_;
  FirstLayer layer_;
};

/// What a control network adds to the features of `layer` for latents x, at its strength. Throws
/// Error(mismatch) for the network of another kind of model.
at::Tensor control_features(const ControlInput& control, const FirstLayer& layer,
                            const at::Tensor& x);

/// The same as tokens [B or 1, rows * columns, width]; undefined for null.
at::Tensor control_tokens(const ControlInput* control, const FirstLayer& layer,
                          const at::Tensor& x);

/// The channels of a small encoder whose features are 1 / `downscale` of pictures. Throws
/// Error(invalid_argument) unless that is a power of 2.
std::vector<std::int64_t> encoder_channels(std::int64_t downscale, const std::string& where);

/// The start of a control network: tensors that the denoiser has as well are copies of its own,
/// what ends in the denoiser is zero, and the rest is random.
class ControlStart final : public nn::TensorStore {
 public:
  ControlStart(std::map<std::string, at::Tensor> copied, std::uint64_t seed)
      : copied_(std::move(copied)), random_(seed) {}
  std::optional<at::Tensor> find(const std::string& name, const nn::Shape& shape,
                                 const nn::Init& init) const override;
  std::vector<std::string> names() const override { return {}; }
  std::string description() const override { return "a new control network"; }

 private:
  std::map<std::string, at::Tensor> copied_;
  nn::RandomStore random_;
};

}  // namespace ringlet::pipeline
