#include "ringlet/pipeline/stable_diffusion/stable_diffusion_memory.h"

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <vector>

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

/// Walks a U-Net's blocks as UNet::forward does.
class UNetWalk {
 public:
  UNetWalk(const models::UNetConfig& config, const PassShape& shape, LayerAdapters adapters)
      : c_(config), s_(shape), adapters_(std::move(adapters)) {
    for (std::size_t level = c_.levels.size(); level-- > 0;)
      for (std::int64_t i = 0; i <= c_.levels[level].layers; ++i)
        joined_.push_back(pixels(level) * joined_channels(level, i));
  }

  PassBlocks down_and_middle() {
    keep(pixels(0) * channels(0));  // the first features
    skip();
    for (std::size_t level = 0; level < c_.levels.size(); ++level) down(level);
    const std::size_t last = c_.levels.size() - 1;
    resnet("mid_block.resnets.0", last, channels(last), false);
    transformer("mid_block.attentions.0", last);
    resnet("mid_block.resnets.1", last, channels(last), false);
    return ended();
  }

  PassBlocks all() {
    down_and_middle();
    for (std::size_t i = 0; i < c_.levels.size(); ++i) up(i, c_.levels.size() - 1 - i);
    // The last norm's input stays. Its result, and the gradients of both.
    blocks_.push_back({.before = std::exchange(before_, 0.0) + pixels(0) * channels(0),
                       .passing = 3.0 * pixels(0) * channels(0)});
    return ended();
  }

 private:
  /// Pixels of all rows of a level.
  double pixels(std::size_t level) const { return number(s_.rows) * pixels_of(s_.latents, level); }
  double channels(std::size_t level) const { return number(c_.levels[level].channels); }

  /// Of the i-th residual block on the way up: what comes from below beside a skip.
  double joined_channels(std::size_t level, std::int64_t i) const {
    const double above = channels(std::min(level + 1, c_.levels.size() - 1));
    const double below = channels(level == 0 ? 0 : level - 1);
    return (i == 0 ? above : channels(level)) +
           (i == c_.levels[level].layers ? below : channels(level));
  }

  void keep(double numbers) { before_ += numbers; }

  /// What was made last stands beside what comes up later. Its gradient waits from there until the
  /// backward pass comes here, as a part of the gradient of both.
  void skip() { waiting_ += joined_[joined_.size() - ++skips_]; }

  PassBlocks ended() {
    if (before_ != 0.0) blocks_.push_back({.before = std::exchange(before_, 0.0)});
    return blocks_;
  }

  void block(const std::string& name, double inside, double passing, double work) {
    blocks_.push_back({.name = name,
                       .before = std::exchange(before_, 0.0),
                       .inside = inside,
                       .passing = passing + waiting_,
                       .work = work});
  }

  double adapted(const std::string& prefix, std::initializer_list<const char*> layers,
                 double tokens, double input) const {
    return kept_by_layers(adapters_, prefix, layers, {tokens, input}, s_);
  }

  /// `joined`: the input is a copy of two, made for this block.
  void resnet(const std::string& name, std::size_t level, double in, bool joined) {
    const double out = channels(level), p = pixels(level);
    if (joined) keep(p * in);
    // The first convolution's result, which the second norm normalises again.
    const double inside = p * out + adapted(name, {".conv1"}, p, in) +
                          adapted(name, {".conv2"}, p, out) +
                          (in == out ? 0.0 : adapted(name, {".conv_shortcut"}, p, 0.0));
    // The block's gradient, and in a norm that of SiLU's result and that of its own, with the
    // norm's result or the gradient of its input.
    const double passing = p * (out + 3.0 * std::max(in, out));
    constexpr double kKernel = 9.0, kOperations = 2.0;  // a product and a sum
    const double work = kKernel * (in + out) * out + (in == out ? 0.0 : in * out);
    block(name, inside, passing, kOperations * p * work);
    keep(p * out);  // the next norm's input
  }

  void transformer(const std::string& name, std::size_t level) {
    const models::UNetLevel& here = c_.levels[level];
    const double width = channels(level), p = pixels(level);
    keep(p * width + adapted(name, {".proj_in", ".proj_out"}, p, width));
    for (std::int64_t i = 0; i < here.transformer_layers; ++i) {
      transformer_block(name + ".transformer_blocks." + std::to_string(i), here, width, p);
      keep(p * width);  // the next norm's input
    }
  }

  void transformer_block(const std::string& name, const models::UNetLevel& level, double width,
                         double p) {
    const double context = number(s_.rows * s_.text_length);
    const double self_tokens =
        level.only_cross_attention ? number(s_.text_length) : p / number(s_.rows);
    const double cross_tokens = number(s_.text_length);
    const double scores = number(level.heads) * p * (self_tokens + cross_tokens);
    // Three norms' inputs but the block's own, both attentions' query, the first one's key and
    // value, the feed-forward's 8. Attention keeps its result, or the scores.
    double inside = p * width * (2.0 + 4.0 + 8.0) + 2.0 * context * width;
    inside += s_.fused_attention ? 2.0 * p * width : scores;
    // Normed tokens and GEGLU's result, which layers take in, are computed again.
    inside += adapted(name, {".attn1.to_q", ".attn1.to_k", ".attn1.to_v"}, p, 0.0);
    inside += adapted(name, {".attn2.to_q"}, p, 0.0);
    inside += adapted(name, {".attn2.to_k", ".attn2.to_v"}, context, 0.0);
    inside += adapted(name, {".attn1.to_out.0", ".attn2.to_out.0"}, p,
                      s_.fused_attention ? 0.0 : 2.0 * width);
    inside += adapted(name, {".ff.net.0.proj", ".ff.net.2"}, p, 0.0);
    // GEGLU's gradients; or those of the first attention's scores, when what the second one and the
    // feed-forward have kept is gone.
    const double feed_forward = 16.0 * p * width;
    const double gone = p * (10.0 * width + number(level.heads) * cross_tokens);
    const double attention =
        s_.fused_attention ? 0.0
                           : 2.0 * p * width + 2.0 * number(level.heads) * p * self_tokens - gone;
    constexpr double kOperations = 2.0;
    const double work = p * width * width * (4.0 + 2.0 + 12.0) +
                        2.0 * context * number(level.context_width) * width +
                        2.0 * p * width * (self_tokens + cross_tokens);
    block(name, inside, std::max(feed_forward, attention), kOperations * work);
  }

  void down(std::size_t level) {
    const models::UNetLevel& here = c_.levels[level];
    const std::string name = "down_blocks." + std::to_string(level);
    for (std::int64_t i = 0; i < here.layers; ++i) {
      const bool first = i == 0 && level > 0;
      resnet(name + ".resnets." + std::to_string(i), level, channels(first ? level - 1 : level),
             false);
      if (here.down_attention) transformer(name + ".attentions." + std::to_string(i), level);
      skip();
    }
    if (level + 1 == c_.levels.size()) return;
    keep(pixels(level + 1) * channels(level));
    skip();
  }

  void up(std::size_t index, std::size_t level) {
    const models::UNetLevel& here = c_.levels[level];
    const std::string name = "up_blocks." + std::to_string(index);
    for (std::int64_t i = 0; i <= here.layers; ++i) {
      waiting_ -= joined_[joined_.size() - skips_--];
      resnet(name + ".resnets." + std::to_string(i), level, joined_channels(level, i), true);
      if (here.up_attention) transformer(name + ".attentions." + std::to_string(i), level);
      // The last result is copied to stand beside a skip, and not kept itself.
      keep(-pixels(level) * channels(level));
    }
  }

  const models::UNetConfig& c_;
  PassShape s_;
  LayerAdapters adapters_;
  PassBlocks blocks_;
  double before_ = 0.0;         ///< kept since the last block
  std::vector<double> joined_;  ///< inputs of the residual blocks on the way up
  std::size_t skips_ = 0;       ///< that have been made and not been used
  double waiting_ = 0.0;        ///< their gradients, while that of an earlier block is computed
};

}  // namespace

PassBlocks unet_pass(const models::UNetConfig& config, const PassShape& shape,
                     const adapt::AdapterSet* adapters) {
  return UNetWalk(config, shape, layer_adapters(adapters, "unet")).all();
}

PassBlocks controlnet_pass(const models::UNetConfig& config, const PassShape& shape) {
  PassShape trained = shape;
  trained.trained = true;
  return UNetWalk(config, trained, {}).down_and_middle();
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

}  // namespace ringlet::pipeline
