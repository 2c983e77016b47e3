// The autoencoder of a single-file (LDM) checkpoint.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "ringlet/formats/checkpoint_part.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::formats {

/// What an autoencoder's tensors do not say: how its latents are scaled, and its usual pictures.
struct LatentScale {
  std::int64_t sample_size = 512;
  double scaling_factor = 0.18215;
  std::optional<double> shift_factor = std::nullopt;
};

/// Of the published families.
LatentScale stable_diffusion_scale();
LatentScale stable_diffusion_xl_scale();
LatentScale stable_diffusion_3_scale();
LatentScale flux_scale();

/// The prefix of an autoencoder's tensors in a file, under LDM's or diffusers' names
/// ("first_stage_model.", "vae.", ""); nothing where there is none.
std::optional<std::string> find_autoencoder(const nn::TensorStore& store);

/// It as diffusers' network. Throws Error(bad_format) for an incomplete one.
SingleFileComponent open_autoencoder(const std::shared_ptr<const nn::TensorStore>& store,
                                     const std::string& prefix, const LatentScale& scale);

}  // namespace ringlet::formats
