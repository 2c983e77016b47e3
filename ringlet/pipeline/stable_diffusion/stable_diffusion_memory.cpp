#include "ringlet/pipeline/stable_diffusion/stable_diffusion_memory.h"

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "ringlet/adapt/contraction.h"
#include "ringlet/core/picture_size.h"

namespace ringlet::pipeline {
namespace {

double number(std::int64_t count) { return static_cast<double>(count); }

/// Pixels of latents that have been halved `level` times.
double pixels_of(PictureSize latents, std::size_t level) {
  const auto side = [level](std::int64_t pixels) {
    return number(std::max<std::int64_t>(1, pixels >> level));
  };
  return side(latents.width) * side(latents.height);
}

/// Adapters of a component with their layers, by the layers' names.
using Adapters = std::map<std::string, const adapt::AdapterSet::Entry*>;

Adapters adapters_of(const adapt::AdapterSet* set, const std::string& component) {
  Adapters found;
  if (set != nullptr)
    for (const adapt::AdapterSet::Entry& entry : set->entries())
      if (entry.target.component == component) found[entry.target.name] = &entry;
  return found;
}

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

/// Walks a U-Net's blocks as UNet::forward does.
class UNetWalk {
 public:
  UNetWalk(const models::UNetConfig& config, const PassShape& shape, Adapters adapters)
      : c_(config), s_(shape), adapters_(std::move(adapters)) {}

  PassMemory down_and_middle() {
    keep(pixels(0) * channels(0));  // the first features
    for (std::size_t level = 0; level < c_.levels.size(); ++level) down(level);
    const std::size_t last = c_.levels.size() - 1;
    resnet("mid_block.resnets.0", last, channels(last), false);
    transformer("mid_block.attentions.0", last);
    resnet("mid_block.resnets.1", last, channels(last), false);
    return total_;
  }

  PassMemory all() {
    down_and_middle();
    for (std::size_t i = 0; i < c_.levels.size(); ++i) up(i, c_.levels.size() - 1 - i);
    keep(2.0 * pixels(0) * channels(0));  // norm and activation at the end
    return total_;
  }

 private:
  /// Pixels of all rows of a level.
  double pixels(std::size_t level) const { return number(s_.rows) * pixels_of(s_.latents, level); }
  double channels(std::size_t level) const { return number(c_.levels[level].channels); }

  void keep(double numbers) { total_.kept += numbers; }

  /// A part that gradient checkpointing computes again: of `inside` only one at a time is there.
  void block(double inside, double passing) {
    if (s_.gradient_checkpointing)
      total_.passing = std::max(total_.passing, inside + passing);
    else
      keep(inside), total_.passing = std::max(total_.passing, passing);
  }

  /// What adapters, or learning itself, make layers with a common input keep.
  double adapted(const std::string& prefix, std::initializer_list<const char*> layers,
                 double tokens, double input) const {
    double kept = 0.0;
    bool any = s_.trained;
    for (const char* layer : layers) {
      const auto found = adapters_.find(prefix + layer);
      if (found == adapters_.end()) continue;
      any = true;
      kept += kept_by(*found->second, tokens, s_.precision);
    }
    return any ? kept + tokens * input : kept;
  }

  /// `joined`: the input is a copy of two, made for this block.
  void resnet(const std::string& name, std::size_t level, double in, bool joined) {
    const double out = channels(level), p = pixels(level);
    if (joined) keep(p * in);
    const double inside = p * (in + 2.0 * out) + adapted(name, {".conv1"}, p, in) +
                          adapted(name, {".conv2"}, p, out) +
                          (in == out ? 0.0 : adapted(name, {".conv_shortcut"}, p, 0.0));
    block(inside, p * (in + 2.0 * out));
    keep(p * out);  // the next norm's input
  }

  void transformer(const std::string& name, std::size_t level) {
    const models::UNetLevel& here = c_.levels[level];
    const double width = channels(level), p = pixels(level);
    keep(p * width + adapted(name, {".proj_in", ".proj_out"}, p, width));
    const double context = number(s_.rows * s_.text_length);
    for (std::int64_t i = 0; i < here.transformer_layers; ++i) {
      const std::string prefix = name + ".transformer_blocks." + std::to_string(i);
      // Three norms' inputs but the block's own, both attentions' query and result, the first one's
      // key and value, the feed-forward's 8.
      double inside = p * width * (2.0 + 6.0 + 8.0) + 2.0 * context * width;
      inside += adapted(prefix, {".attn1.to_q", ".attn1.to_k", ".attn1.to_v"}, p, width);
      inside += adapted(prefix, {".attn2.to_q"}, p, width);
      inside += adapted(prefix, {".attn2.to_k", ".attn2.to_v"}, context, 0.0);
      inside += adapted(prefix, {".attn1.to_out.0", ".attn2.to_out.0"}, p, 0.0);
      inside += adapted(prefix, {".ff.net.0.proj"}, p, width);
      inside += adapted(prefix, {".ff.net.2"}, p, 4.0 * width);
      block(inside, p * width * 16.0);
      keep(p * width);  // the next norm's input
    }
  }

  void down(std::size_t level) {
    const models::UNetLevel& here = c_.levels[level];
    const std::string name = "down_blocks." + std::to_string(level);
    for (std::int64_t i = 0; i < here.layers; ++i) {
      const bool first = i == 0 && level > 0;
      resnet(name + ".resnets." + std::to_string(i), level, channels(first ? level - 1 : level),
             false);
      if (here.down_attention) transformer(name + ".attentions." + std::to_string(i), level);
    }
    if (level + 1 < c_.levels.size()) keep(pixels(level + 1) * channels(level));
  }

  void up(std::size_t index, std::size_t level) {
    const models::UNetLevel& here = c_.levels[level];
    const std::string name = "up_blocks." + std::to_string(index);
    const double above = channels(std::min(level + 1, c_.levels.size() - 1));
    const double below = channels(level == 0 ? 0 : level - 1);
    for (std::int64_t i = 0; i <= here.layers; ++i) {
      const double in =
          (i == 0 ? above : channels(level)) + (i == here.layers ? below : channels(level));
      resnet(name + ".resnets." + std::to_string(i), level, in, true);
      if (here.up_attention) transformer(name + ".attentions." + std::to_string(i), level);
      // The last result is copied to stand beside a skip, and not kept itself.
      keep(-pixels(level) * channels(level));
    }
  }

  const models::UNetConfig& c_;
  PassShape s_;
  Adapters adapters_;
  PassMemory total_;
};

/// The most that a residual block without gradients holds, per pixel: input, norm and convolution,
/// or input, second convolution, shortcut and sum.
double resnet_inference(double in, double out) {
  return in == out ? 3.0 * in : std::max(2.0 * in + out, in + 3.0 * out);
}

}  // namespace

PassMemory unet_pass(const models::UNetConfig& config, const PassShape& shape,
                     const adapt::AdapterSet* adapters) {
  return UNetWalk(config, shape, adapters_of(adapters, "unet")).all();
}

PassMemory controlnet_pass(const models::UNetConfig& config, const PassShape& shape) {
  PassShape trained = shape;
  trained.trained = true;
  return UNetWalk(config, trained, {}).down_and_middle();
}

PassMemory text_pass(const models::ClipTextConfig& config, const PassShape& shape) {
  const double tokens = number(shape.rows * shape.text_length);
  const double width = number(config.hidden_size), inner = number(config.intermediate_size);
  // Both norms' inputs and results, query, key, value, result; the activation's three.
  const double layer = tokens * (8.0 * width + 3.0 * inner);
  return {number(config.num_hidden_layers) * layer, tokens * inner};
}

double unet_inference(const models::UNetConfig& config, const PassShape& shape) {
  double skips = 0.0, largest = 0.0;
  for (std::size_t level = 0; level < config.levels.size(); ++level) {
    const models::UNetLevel& here = config.levels[level];
    const double each =
        number(shape.rows) * pixels_of(shape.latents, level) * number(here.channels);
    skips += each * number(here.layers + 1);
    constexpr double kFeedForward = 14.0, kConvolutions = 7.0;
    const bool attends = here.down_attention || here.up_attention;
    largest = std::max(largest, each * (attends ? kFeedForward : kConvolutions));
  }
  return skips + largest;
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
