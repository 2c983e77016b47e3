// A network of a checkpoint under diffusers' and transformers' names.
#pragma once

#include <memory>

#include "ringlet/core/json.h"
#include "ringlet/nn/weight_source.h"

namespace ringlet::formats {

/// With the configuration that its tensors imply.
struct SingleFileComponent {
  Json config;
  std::shared_ptr<const nn::TensorStore> weights;
};

}  // namespace ringlet::formats
