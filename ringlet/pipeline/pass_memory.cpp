#include "ringlet/pipeline/pass_memory.h"

#include <algorithm>

#include "ringlet/adapt/contraction.h"

namespace ringlet::pipeline {
namespace {

double number(std::int64_t count) { return static_cast<double>(count); }

/// What an adapter keeps besides its layer's input: a weight that it has formed, with what led to
/// it, or intermediate results of its tokens. Weights that are formed of a narrow one are not kept.
double kept_by(const adapt::AdapterSet::Entry& entry, double tokens, at::ScalarType precision) {
  const adapt::TransformResidual& adapter = *entry.adapter;
  const adapt::Parts& parts = adapter.parts();
  const bool narrow = entry.target.layer->stored_weight().needs_widening(precision);
  const adapt::LayerShape& shape = adapter.shape();
  const bool factored =
      dynamic_cast<const adapt::FactoredResidual*>(parts.residual.get()) != nullptr;
  adapt::Contraction contraction =
      adapt::choose_contraction(parts.transforms, parts.residual.get(), shape,
                                static_cast<std::int64_t>(tokens), /*training=*/true);
  if (parts.magnitude && (!parts.transforms.empty() || (parts.residual && !factored)))
    contraction = adapt::Contraction::everything_folded;
  const double weight = number(shape.out * shape.patch());
  const double transforms = static_cast<double>(parts.transforms.size());
  double formed = 0.0;
  const bool folds_all = contraction == adapt::Contraction::everything_folded;
  if (contraction != adapt::Contraction::through_input && !narrow)
    formed = weight * (1.0 + transforms);
  if (parts.residual && (folds_all ? !narrow : !factored)) formed += weight;
  if (parts.magnitude && !narrow) formed += weight;
  double through = 0.0;
  if (contraction == adapt::Contraction::through_input) through = transforms * number(shape.in);
  return formed + through * tokens;
}

/// The most that a residual block without gradients holds, per pixel: input, norm and convolution,
/// or input, second convolution, shortcut and sum.
double resnet_inference(double in, double out) {
  return in == out ? 3.0 * in : std::max(2.0 * in + out, in + 3.0 * out);
}

}  // namespace

LayerAdapters layer_adapters(const adapt::AdapterSet* set, const std::string& component) {
  LayerAdapters found;
  if (set != nullptr)
    for (const adapt::AdapterSet::Entry& entry : set->entries())
      if (entry.target.component == component) found[entry.target.name] = &entry;
  return found;
}

double kept_by_layers(const LayerAdapters& adapters, const std::string& prefix,
                      std::initializer_list<const char*> layers, const LayerInput& input,
                      const PassShape& shape) {
  double kept = 0.0;
  bool any = shape.trained;
  for (const char* layer : layers) {
    const auto found = adapters.find(prefix + layer);
    if (found == adapters.end()) continue;
    any = true;
    kept += kept_by(*found->second, input.tokens, shape.precision);
  }
  return any ? kept + input.tokens * input.width : kept;
}

PassBlocks text_pass(const models::ClipTextConfig& config, const PassShape& shape) {
  const double tokens = number(shape.rows * shape.text_length);
  const double width = number(config.hidden_size), inner = number(config.intermediate_size);
  // Both norms' inputs and results, query, key, value, result; the activation's three.
  const double layer = tokens * (8.0 * width + 3.0 * inner);
  return {{.before = number(config.num_hidden_layers) * layer, .passing = tokens * inner}};
}

double vae_decoding(const models::VaeConfig& config, std::int64_t pictures, PictureSize size) {
  double most = 0.0, in = number(config.block_out_channels.back());
  const PictureSize latents = size.divided_by(config.downscale());
  double pixels = number(latents.width) * number(latents.height);
  for (std::size_t i = config.block_out_channels.size(); i-- > 0; pixels *= 4.0) {
    const double out = number(config.block_out_channels[i]);
    most = std::max(most, pixels * resnet_inference(in, out));
    if (i > 0) most = std::max(most, 4.0 * pixels * 2.25 * out);  // the enlargement
    in = out;
  }
  return number(pictures) * most;
}

double vae_encoding(const models::VaeConfig& config, PictureSize size) {
  double most = 0.0, in = number(config.block_out_channels.front());
  double pixels = number(size.width) * number(size.height);
  for (const std::int64_t channels : config.block_out_channels) {
    const double out = number(channels);
    most = std::max(most, pixels * resnet_inference(in, out));
    in = out;
    pixels /= 4.0;
  }
  return most;
}

}  // namespace ringlet::pipeline
