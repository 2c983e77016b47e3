// A network beside a text-to-image model that looks at a picture, so that what is made follows it.
#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <string>
#include <utility>

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "ringlet/io/image.h"

namespace ringlet::pipeline {

/// How a control picture enters the denoiser: `encoder` is the small network whose output is added
/// once, to the first features (the protocol of OFT, BOFT and TLoRA); `channels` concatenates the
/// picture's latents with the noisy ones, which a wider first layer sees (FLUX.1 Canny and Depth,
/// InstructPix2Pix); `controlnet` is ControlNet, a copy of the denoiser's first half.
enum class ControlKind { encoder, channels, controlnet };

inline constexpr std::array<std::pair<const char*, ControlKind>, 3> kControlKindNames = {
    {{"encoder", ControlKind::encoder},
     {"channels", ControlKind::channels},
     {"controlnet", ControlKind::controlnet}}};
const char* name_of(ControlKind kind);

/// [1, 3, h, w] in [0, 1], which is how control networks see pictures.
at::Tensor control_tensor(const io::Image& picture);

/// The same of pictures as bytes [B, 3, h, w], on their device. Latents in their place stay as they
/// are.
at::Tensor control_tensor(const at::Tensor& stored);

/// Made by a model, and for it alone: TextToImageModel::create_control and its siblings.
class ControlNetwork {
 public:
  virtual ~ControlNetwork() = default;
  ControlNetwork(const ControlNetwork&) = delete;
  ControlNetwork& operator=(const ControlNetwork&) = delete;

  virtual ControlKind kind() const = 0;

  /// Whether it looks at the pictures' latents: TextToImageModel::control_view.
  bool sees_latents() const { return kind() == ControlKind::channels; }

  /// The network's tensors by dotted name, which learn after create_control.
  virtual const std::map<std::string, at::Tensor>& tensors() const = 0;

  /// Writes config.json and the weights as `storage`, a folder for diffusers' ControlNetModel. Only
  /// for kind controlnet. Throws Error(io | no_space | non_finite).
  virtual void save(const std::filesystem::path& folder, at::ScalarType storage) const = 0;

 protected:
  ControlNetwork() = default;
};

}  // namespace ringlet::pipeline
