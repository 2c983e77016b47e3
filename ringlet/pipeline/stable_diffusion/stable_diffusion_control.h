// Control networks of Stable Diffusion's U-Net.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/models/diffusion/controlnet.h"
#include "ringlet/models/diffusion/unet.h"
#include "ringlet/nn/weight_source.h"
#include "ringlet/pipeline/control_features.h"

namespace ringlet::pipeline {

class StableDiffusion;

/// Where the U-Net takes what a ControlFeatures adds.
FirstLayer first_layer(const StableDiffusion& model);

/// A ControlNet.
class UNetControl final : public ControlNetwork {
 public:
  /// A new one, which starts as a copy of the U-Net's weights. Throws Error(invalid_argument) where
  /// the model's latents are not 2, 4, 8, … times smaller than its pictures.
  static std::unique_ptr<UNetControl> create(const StableDiffusion& model, std::uint64_t seed);
  /// TextToImageModel::open_control.
  static std::unique_ptr<UNetControl> open(const std::filesystem::path& path,
                                           const StableDiffusion& model);

  ControlKind kind() const override { return ControlKind::controlnet; }
  const std::map<std::string, at::Tensor>& tensors() const override { return index_.tensors; }
  void save(const std::filesystem::path& folder, at::ScalarType storage) const override;

  /// What is added to the U-Net for latents [B, C, h, w] and control pictures [B or 1, 3, H, W] in
  /// [0, 1], times `strength`.
  models::UNetResiduals operator()(const at::Tensor& latents, const at::Tensor& timesteps,
                                   const at::Tensor& text, const models::AddedConditions* added,
                                   const at::Tensor& pictures, double strength) const;

 private:
  UNetControl(models::ControlNet network, nn::ModuleIndex index, Json config)
      : network_(std::move(network)), index_(std::move(index)), config_(std::move(config)) {}

  models::ControlNet network_;
  nn::ModuleIndex index_;
  Json config_;
};

}  // namespace ringlet::pipeline
