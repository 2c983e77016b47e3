// Control networks beside a U-Net: what a control picture adds to it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include <ATen/core/Tensor.h>

#include "ringlet/core/json.h"
#include "ringlet/io/image.h"
#include "ringlet/models/controlnet.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::pipeline {

class StableDiffusion;

/// How a control picture enters the U-Net: `encoder` is the small network whose output is added
/// once, after conv_in (the protocol of OFT, BOFT and TLoRA); `controlnet` is ControlNet, a copy of
/// the way down.
enum class ControlKind { encoder, controlnet };

/// Reads "encoder" or "controlnet". Throws Error(invalid_argument).
ControlKind control_kind_from_name(std::string_view name);
const char* name_of(ControlKind kind);

/// [1, 3, h, w] in [0, 1], which is how control networks see pictures.
at::Tensor control_tensor(const io::Image& picture);

class ControlNetwork {
 public:
  /// A new network for this model, to be trained: the U-Net with it equals the U-Net without it. A
  /// ControlNet starts as a copy of the U-Net's weights. Throws Error(unsupported) for inpainting
  /// models and Error(invalid_argument) where the model's latents are not 2, 4, 8, … times smaller
  /// than its pictures.
  static ControlNetwork create(ControlKind kind, const StableDiffusion& model, std::uint64_t seed);

  /// A control encoder from the tensors of an adapter file. Throws Error(mismatch) that names what
  /// does not fit.
  static ControlNetwork from_tensors(const std::map<std::string, at::Tensor>& tensors,
                                     const StableDiffusion& model, const std::string& where);

  /// A ControlNet from a folder as diffusers writes it, or one of its safetensors files beside its
  /// config.json. Throws as find_model, and Error(mismatch) for one of another U-Net.
  static ControlNetwork open(const std::filesystem::path& folder, const StableDiffusion& model);

  ControlKind kind() const;

  /// What is added to the U-Net for latents [B, C, h, w] and control pictures [B or 1, 3, H, W] in
  /// [0, 1], times `strength`.
  models::UNetResiduals operator()(const at::Tensor& latents, const at::Tensor& timesteps,
                                   const at::Tensor& text, const models::AddedConditions* added,
                                   const at::Tensor& pictures, double strength = 1.0) const;

  /// The network's tensors by dotted name, which learn after create().
  const std::map<std::string, at::Tensor>& tensors() const { return index_.tensors; }

  /// Writes config.json and the weights as `storage`, a folder for diffusers' ControlNetModel. Only
  /// for kind controlnet. Throws Error(io | no_space | non_finite).
  void save(const std::filesystem::path& folder, at::ScalarType storage) const;

 private:
  using Network = std::variant<models::ControlEmbedding, models::ControlNet>;
  ControlNetwork(std::unique_ptr<Network> network, nn::ModuleIndex index, Json config)
      : network_(std::move(network)), index_(std::move(index)), config_(std::move(config)) {}

  std::unique_ptr<Network> network_;
  nn::ModuleIndex index_;
  Json config_;  ///< of a ControlNet
};

}  // namespace ringlet::pipeline
