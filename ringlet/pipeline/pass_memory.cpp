#include "ringlet/pipeline/pass_memory.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "ringlet/adapt/contraction.h"
#include "ringlet/nn/byte_count.h"

namespace ringlet::pipeline {
namespace {

double number(std::int64_t count) { return static_cast<double>(count); }

adapt::Contraction contraction_of(const adapt::Parts& parts, const adapt::LayerShape& shape,
                                  double tokens) {
  const bool factored =
      dynamic_cast<const adapt::FactoredResidual*>(parts.residual.get()) != nullptr;
  if (parts.magnitude && (!parts.transforms.empty() || (parts.residual && !factored)))
    return adapt::Contraction::everything_folded;
  return adapt::choose_contraction(parts.transforms, parts.residual.get(), shape,
                                   static_cast<std::int64_t>(tokens), /*training=*/true);
}

/// What transforms of activations keep besides the layer's input: what the later ones take in.
double kept_by_transforms(const adapt::Parts& parts, const adapt::LayerShape& shape) {
  const auto inputs = std::ranges::count_if(
      parts.transforms, [](const auto& one) { return one->side() == adapt::Side::input; });
  const double outputs = static_cast<double>(parts.transforms.size()) - number(inputs);
  return number(std::max<std::int64_t>(inputs - 1, 0) * shape.in) + outputs * number(shape.out);
}

/// What an adapter keeps besides its layer's input: a weight that it has formed, or intermediate
/// results of its tokens. Weights that are formed of a narrow one are not kept.
double kept_by(const adapt::AdapterSet::Entry& entry, double tokens, at::ScalarType precision) {
  const adapt::Parts& parts = entry.adapter->parts();
  const adapt::LayerShape& shape = entry.adapter->shape();
  const bool narrow = entry.target.layer->stored_weight().needs_widening(precision);
  const bool factored =
      dynamic_cast<const adapt::FactoredResidual*>(parts.residual.get()) != nullptr;
  const adapt::Contraction contraction = contraction_of(parts, shape, tokens);
  const bool folds_all = contraction == adapt::Contraction::everything_folded;
  const double weight = number(shape.out * shape.patch()), formed = narrow ? 0.0 : weight;
  double kept = contraction == adapt::Contraction::through_input
                    ? tokens * kept_by_transforms(parts, shape)
                    : formed * std::max(1.0, static_cast<double>(parts.transforms.size()));
  if (parts.residual && !folds_all)
    kept += factored ? tokens * number(parts.residual->ranks()) : weight;
  if (parts.magnitude)
    kept += folds_all ? formed
                      : tokens * number(parts.magnitude->side() == adapt::Side::input ? shape.in
                                                                                      : shape.out);
  return kept;
}

/// Bytes that a layer's parts make of their parameters alone, as an input of one row asks for it.
std::int64_t made_of_parameters(const adapt::AdapterSet::Entry& entry, at::ScalarType precision) {
  const adapt::Parts& parts = entry.adapter->parts();
  const at::AutoGradMode recording(true);
  const nn::ByteCount count;
  std::vector<at::Tensor> made;
  const auto options = at::TensorOptions(precision).device(entry.target.layer->device());
  for (const auto& transform : parts.transforms)
    made.push_back(transform->forward(at::zeros({1, transform->width()}, options)));
  if (const auto* factored = dynamic_cast<const adapt::FactoredResidual*>(parts.residual.get())) {
    const adapt::FactoredResidual::Pair pair = factored->pair();
    made.insert(made.end(), {pair.down, pair.up});
  }
  return count.now();
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

double kept_by_parameters(const adapt::AdapterSet* adapters, at::ScalarType precision) {
  if (adapters == nullptr) return 0.0;
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> measured;  // by width: in, out
  double bytes = 0.0;
  for (const adapt::AdapterSet::Entry& entry : adapters->entries()) {
    const adapt::LayerShape& shape = entry.adapter->shape();
    const auto [found, is_new] = measured.try_emplace({shape.in, shape.out * shape.patch()}, 0);
    if (is_new) found->second = made_of_parameters(entry, precision);
    bytes += number(found->second);
  }
  return bytes / static_cast<double>(c10::elementSize(precision));
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
