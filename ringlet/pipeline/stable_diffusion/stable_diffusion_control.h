// Control networks of Stable Diffusion's U-Net.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/models/diffusion/control_embedding.h"
#include "ringlet/models/diffusion/controlnet.h"
#include "ringlet/models/diffusion/unet.h"
#include "ringlet/nn/weight_source.h"
#include "ringlet/pipeline/control.h"

namespace ringlet::pipeline {

class StableDiffusion;

class UNetControl final : public ControlNetwork {
 public:
  /// The functions of TextToImageModel for Stable Diffusion. A ControlNet starts as a copy of the
  /// U-Net's weights. Throws Error(unsupported) for inpainting models and Error(invalid_argument)
  /// where the model's latents are not 2, 4, 8, … times smaller than its pictures.
  static std::unique_ptr<UNetControl> create(ControlKind kind, const StableDiffusion& model,
                                             std::uint64_t seed);
  static std::unique_ptr<UNetControl> from_tensors(const std::map<std::string, at::Tensor>& tensors,
                                                   const StableDiffusion& model,
                                                   const std::string& where);
  static std::unique_ptr<UNetControl> open(const std::filesystem::path& path,
                                           const StableDiffusion& model);

  ControlKind kind() const override;
  const std::map<std::string, at::Tensor>& tensors() const override { return index_.tensors; }
  void save(const std::filesystem::path& folder, at::ScalarType storage) const override;

  /// What is added to the U-Net for latents [B, C, h, w] and control pictures [B or 1, 3, H, W] in
  /// [0, 1], times `strength`.
  models::UNetResiduals operator()(const at::Tensor& latents, const at::Tensor& timesteps,
                                   const at::Tensor& text, const models::AddedConditions* added,
                                   const at::Tensor& pictures, double strength) const;

 private:
  using Network = std::variant<models::ControlEmbedding, models::ControlNet>;
  static std::unique_ptr<UNetControl> made(std::unique_ptr<Network> network,
                                           const nn::WeightSource& source, Json config);
  UNetControl(std::unique_ptr<Network> network, nn::ModuleIndex index, Json config)
      : network_(std::move(network)), index_(std::move(index)), config_(std::move(config)) {}

  std::unique_ptr<Network> network_;
  nn::ModuleIndex index_;
  Json config_;  ///< of a ControlNet
};

}  // namespace ringlet::pipeline
