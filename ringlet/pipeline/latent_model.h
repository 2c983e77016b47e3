// What models of latents have in common: an autoencoder, and networks that rest between their uses.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/models/diffusion/vae.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::pipeline {

/// A denoiser of an autoencoder's latents. A family derives from it, opens its networks in its
/// constructor, and adds what is its own: text, conditions, the denoiser's pass.
class LatentModel : public TextToImageModel {
 public:
  const LoadOptions& options() const override { return options_; }
  const ModelNetworks& networks() const override { return networks_; }
  const std::shared_ptr<const diffusion::NoiseProcess>& noise_process() const override {
    return noise_process_;
  }

  nn::Shape latent_shape(PictureSize size) const override;
  PictureSize picture_size(at::IntArrayRef latents) const override;
  LatentPosterior encode(const at::Tensor& pictures) const override;
  at::Tensor decode(const at::Tensor& latents) const override;

  double encoding_bytes(PictureSize size) const override;
  double decoding_bytes(PictureSize size) const override;
  void code_in_tiles(std::int64_t side) override { options_.tile = side; }

  /// Whoever calls its passes has its memory in networks() enter() first.
  const models::AutoencoderKL& vae() const { return *vae_; }

 protected:
  /// `denoiser`: the network's name. The process's warnings are logged.
  LatentModel(std::string denoiser, const LoadOptions& options,
              std::shared_ptr<const diffusion::NoiseProcess> process, const std::string& where);

  /// Where a network's weights come from, in the types of the options. Layers whose names begin
  /// with one of `wide_layers` are never narrowed.
  nn::WeightSource source_of(const ModelComponent& part,
                             std::vector<std::string> wide_layers = {}) const;

  /// All that has been read of a network becomes one of networks(). Throws Error(mismatch) that
  /// names tensors which it did not ask for.
  void add_network(const std::string& name, const ModelComponent& part,
                   const nn::WeightSource& source);

  /// Opens the network "vae".
  void open_autoencoder(const ModelComponent& part);

  /// After all networks are there: lays the denoiser out, and offloads what the options say.
  void finish_denoiser(const ModelComponent& part);

  nn::NetworkMemory& memory_of(const std::string& network) const;

  /// A network that rests gives its memory back: always on the CPU, where that costs little.
  void rest(const std::string& network, IdleNetworks from) const;

  /// enter() of all text encoders, and rest().
  void enter_text_encoders() const;
  void rest_text_encoders() const;

  /// TextToImageModel::class_names of text encoders whose files lack the level "text_model.".
  std::map<std::string, std::string> text_class_names(const ModelFiles& files) const;

  ModelNetworks networks_;

 private:
  models::VaeOptions coding() const;
  PictureSize coded_at_once(PictureSize size) const;

  std::string denoiser_;
  LoadOptions options_;
  std::shared_ptr<const diffusion::NoiseProcess> noise_process_;
  std::unique_ptr<models::AutoencoderKL> vae_;
};

/// Bytes of so many numbers of a type.
double bytes_of(double numbers, at::ScalarType type);

/// The blocks' numbers as bytes of a type.
std::vector<StepBlock> in_bytes(std::vector<StepBlock> blocks, at::ScalarType type);

}  // namespace ringlet::pipeline
