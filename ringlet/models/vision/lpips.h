// LPIPS, a learnt perceptual distance of pictures (Zhang et al. 2018, "The Unreasonable
// Effectiveness of Deep Features as a Perceptual Metric"): weighted differences of the unit
// features of AlexNet or VGG-16 at five depths. Names are torchvision's ("features.N") and the
// published weights'
// ("linK.model.1").
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "ringlet/nn/layer.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::models {

enum class LpipsBackbone { alexnet, vgg16 };

class Lpips {
 public:
  /// `backbone` holds "features.…", `linear` "lin0.model.1.weight" to "lin4.model.1.weight".
  Lpips(const nn::WeightSource& backbone, const nn::WeightSource& linear, LpipsBackbone kind);

  /// Pictures a, b [B, 3, H, W] in [-1, 1] -> distances [B].
  at::Tensor distance(const at::Tensor& a, const at::Tensor& b) const;

 private:
  /// A convolution with ReLU, perhaps after pooling.
  struct Step {
    nn::Conv2d conv;
    bool pooled;  ///< its input is pooled first
    bool seen;    ///< its output is one of the five
  };
  std::vector<at::Tensor> unit_features(const at::Tensor& pixels) const;

  LpipsBackbone kind_;
  std::vector<Step> steps_;
  std::vector<at::Tensor> weights_;
};

}  // namespace ringlet::models
