// What a pass of a model's networks holds in memory, block by block. Counts are of numbers
// (activations), for one batch; docs/performance.md has the formulas.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/core/picture_size.h"
#include "ringlet/models/diffusion/vae.h"
#include "ringlet/models/text/clip_text.h"
#include "ringlet/pipeline/text_to_image_model.h"

namespace ringlet::pipeline {

struct PassShape {
  std::int64_t rows = 1;  ///< pictures at a time
  PictureSize latents = PictureSize::square(64);
  std::int64_t text_length = 77;  ///< tokens of a prompt
  /// What learns beside adapters: then a layer keeps its input, too.
  bool trained = false;
  at::ScalarType precision = at::kFloat;  ///< of the computation
  /// Whether attention keeps no scores (nn::attention_is_fused).
  bool fused_attention = true;
};

/// Blocks of a pass in the order of the forward pass.
using PassBlocks = std::vector<StepBlock>;

/// Adapters of a component with their layers, by the layers' names.
using LayerAdapters = std::map<std::string, const adapt::AdapterSet::Entry*>;
LayerAdapters layer_adapters(const adapt::AdapterSet* set, const std::string& component);

/// What a layer sees.
struct LayerInput {
  double tokens = 0.0;
  double width = 0.0;  ///< 0: its input is kept without it
};

/// What adapters, or learning itself, make layers with a common input keep: the layers `prefix` +
/// each of `layers`.
double kept_by_layers(const LayerAdapters& adapters, const std::string& prefix,
                      std::initializer_list<const char*> layers, const LayerInput& input,
                      const PassShape& shape);

/// What a step computes from the adapters' parameters alone and holds until its end
/// (adapt/derived.h): measured on a layer of each width.
double kept_by_parameters(const adapt::AdapterSet* adapters, at::ScalarType precision);

/// A training pass of a text encoder.
PassBlocks text_pass(const models::ClipTextConfig& config, const PassShape& shape);

/// The most that coding `pictures` of `size` at once holds.
double vae_decoding(const models::VaeConfig& config, std::int64_t pictures, PictureSize size);
double vae_encoding(const models::VaeConfig& config, PictureSize size);

}  // namespace ringlet::pipeline
