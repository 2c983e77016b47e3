// Masked training: weights of the loss, pixel by pixel of the latents.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>

#include "ringlet/io/image.h"

namespace ringlet::train {

/// How a mask becomes weights. The defaults are kohya's masked loss, which multiplies the error by
/// the mask and takes the mean over the whole picture; a weight outside and `normalised` are
/// OneTrainer's unmasked weight and normalised masked area.
struct MaskWeights {
  double outside = 0.0;     ///< least weight, where the mask is black
  bool normalised = false;  ///< divided by their mean, so that small masks count as much as large
};

/// Weights [1, h, w] in fp32 on the host, of a mask that shows the crop: means of its red channel
/// over the areas of the latents [C, h, w]. Throws Error(invalid_argument) at `where` for a mask
/// that leaves nothing to learn from.
at::Tensor loss_mask(const io::Image& mask, at::IntArrayRef latents, const MaskWeights& weights,
                     const std::string& where);

}  // namespace ringlet::train
