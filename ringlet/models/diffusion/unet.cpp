#include "ringlet/models/diffusion/unet.h"

#include <utility>

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include "ringlet/nn/device.h"

namespace ringlet::models {
namespace {

std::int64_t time_channels(const UNetConfig& c) { return 4 * c.levels.front().channels; }

ResnetConfig resnet_config(const UNetConfig& c, std::int64_t in, std::int64_t out) {
  return {.in_channels = in,
          .out_channels = out,
          .time_channels = time_channels(c),
          .groups = c.groups,
          .epsilon = c.norm_eps};
}

Transformer2DConfig transformer_config(const UNetConfig& c, const UNetLevel& level,
                                       bool only_cross_attention) {
  return {.channels = level.channels,
          .heads = level.heads,
          .layers = level.transformer_layers,
          .context_width = level.context_width,
          .groups = c.groups,
          .linear_projection = c.linear_projection,
          .only_cross_attention = only_cross_attention,
          .upcast_attention = c.upcast_attention};
}

/// ControlNet's part: to every skip and to the middle, but not to what flows down.
void add_to_skips(const UNetResiduals& residuals, std::vector<at::Tensor>& skips, at::Tensor& x) {
  if (!residuals.skips.empty() && residuals.skips.size() != skips.size())
    throw Error(ErrorCode::mismatch, "U-Net",
                std::to_string(residuals.skips.size()) + " residuals for " +
                    std::to_string(skips.size()) + " skips",
                "the ControlNet was made for another U-Net");
  for (std::size_t i = 0; i < residuals.skips.size(); ++i) skips[i] = skips[i] + residuals.skips[i];
  if (residuals.middle.defined()) x = x + residuals.middle;
}

at::Tensor take_last(std::vector<at::Tensor>& tensors) {
  at::Tensor last = std::move(tensors.back());
  tensors.pop_back();
  return last;
}

}  // namespace

at::Tensor size_conditions(PictureSize original, std::int64_t crop_left, std::int64_t crop_top,
                           PictureSize target) {
  return at::tensor(
             {original.height, original.width, crop_top, crop_left, target.height, target.width},
             at::kLong)
      .to(at::kFloat)
      .unsqueeze(0);
}

UNetDownBlock::UNetDownBlock(const nn::WeightSource& s, const UNetConfig& c, std::size_t level) {
  const UNetLevel& here = c.levels[level];
  const std::int64_t in = level == 0 ? here.channels : c.levels[level - 1].channels;
  for (std::int64_t i = 0; i < here.layers; ++i) {
    resnets_.emplace_back(s.at("resnets").at(i),
                          resnet_config(c, i == 0 ? in : here.channels, here.channels));
    if (here.down_attention)
      attentions_.emplace_back(s.at("attentions").at(i),
                               transformer_config(c, here, here.only_cross_attention));
  }
  if (level + 1 < c.levels.size())
    downsampler_.emplace(s.at("downsamplers").at(0), here.channels, c.downsample_padding);
}

at::Tensor UNetDownBlock::forward(at::Tensor x, const UNetContext& context,
                                  std::vector<at::Tensor>& skips) const {
  for (std::size_t i = 0; i < resnets_.size(); ++i) {
    x = resnets_[i].forward(x, context.time);
    if (!attentions_.empty()) x = attentions_[i].forward(x, context.text);
    skips.push_back(x);
  }
  if (downsampler_) skips.push_back(x = downsampler_->forward(x));
  return x;
}

UNetMidBlock::UNetMidBlock(const nn::WeightSource& s, const UNetConfig& c)
    : resnet_in_(s.at("resnets").at(0),
                 resnet_config(c, c.levels.back().channels, c.levels.back().channels)),
      attention_(s.at("attentions").at(0),
                 transformer_config(c, c.levels.back(), /*only_cross_attention=*/false)),
      resnet_out_(s.at("resnets").at(1),
                  resnet_config(c, c.levels.back().channels, c.levels.back().channels)) {}

at::Tensor UNetMidBlock::forward(const at::Tensor& x, const UNetContext& context) const {
  const at::Tensor h = attention_.forward(resnet_in_.forward(x, context.time), context.text);
  return resnet_out_.forward(h, context.time);
}

UNetUpBlock::UNetUpBlock(const nn::WeightSource& s, const UNetConfig& c, std::size_t level) {
  const UNetLevel& here = c.levels[level];
  const std::int64_t above =
      level + 1 < c.levels.size() ? c.levels[level + 1].channels : here.channels;
  const std::int64_t below = c.levels[level == 0 ? 0 : level - 1].channels;
  const std::int64_t count = here.layers + 1;
  for (std::int64_t i = 0; i < count; ++i) {
    // Each residual block sees the previous output beside one skip of the way down; the last skip
    // of a level was made by the level before it and has that level's width.
    const std::int64_t previous = i == 0 ? above : here.channels;
    const std::int64_t skip = i == count - 1 ? below : here.channels;
    resnets_.emplace_back(s.at("resnets").at(i), resnet_config(c, previous + skip, here.channels));
    if (here.up_attention)
      attentions_.emplace_back(s.at("attentions").at(i),
                               transformer_config(c, here, here.only_cross_attention));
  }
  if (level > 0) upsampler_.emplace(s.at("upsamplers").at(0), here.channels);
}

at::Tensor UNetUpBlock::forward(at::Tensor x, const UNetContext& context,
                                std::vector<at::Tensor>& skips) const {
  for (std::size_t i = 0; i < resnets_.size(); ++i) {
    x = resnets_[i].forward(at::cat({x, take_last(skips)}, 1), context.time);
    if (!attentions_.empty()) x = attentions_[i].forward(x, context.text);
  }
  // Odd sizes: grow to the size of the skip that comes next rather than to exactly twice.
  return upsampler_ ? upsampler_->forward(x, skips.back().size(2), skips.back().size(3)) : x;
}

UNetTimeEmbedding::UNetTimeEmbedding(const nn::WeightSource& s, const UNetConfig& c)
    : config_(c),
      time_embedding_(s.at("time_embedding"), c.levels.front().channels, time_channels(c)) {
  if (c.text_time)
    add_embedding_.emplace(s.at("add_embedding"), c.projection_input_dim, time_channels(c));
}

at::Tensor UNetTimeEmbedding::forward(const at::Tensor& timesteps, const AddedConditions* added,
                                      at::ScalarType dtype) const {
  const auto embed = [this, dtype](const at::Tensor& numbers, std::int64_t width) {
    return sinusoidal_embedding(numbers, width, config_.flip_sin_to_cos, config_.freq_shift)
        .to(dtype);
  };
  at::Tensor time = time_embedding_.forward(embed(timesteps, config_.levels.front().channels));
  if (!add_embedding_) return time;
  if (added == nullptr)
    throw Error(ErrorCode::invalid_argument, "U-Net",
                "this model needs pooled text and size conditioning (SDXL)");
  const at::Tensor sizes = embed(added->time_ids, config_.addition_time_embed_dim).flatten(1);
  return time + add_embedding_->forward(at::cat({added->pooled_text.to(dtype), sizes}, -1));
}

UNet::UNet(const nn::WeightSource& s, const UNetConfig& c)
    : config_(c),
      conv_in_(s.at("conv_in"), c.in_channels, c.levels.front().channels, c.conv_in_kernel,
               {.padding = (c.conv_in_kernel - 1) / 2}),
      time_(s, c),
      mid_block_(s.at("mid_block"), c),
      conv_norm_out_(s.at("conv_norm_out"), c.groups, c.levels.front().channels, c.norm_eps),
      conv_out_(s.at("conv_out"), c.levels.front().channels, c.out_channels, c.conv_out_kernel,
                {.padding = (c.conv_out_kernel - 1) / 2}) {
  const std::size_t levels = c.levels.size();
  for (std::size_t i = 0; i < levels; ++i) {
    const auto index = static_cast<std::int64_t>(i);
    down_blocks_.emplace_back(s.at("down_blocks").at(index), c, i);
    up_blocks_.emplace_back(s.at("up_blocks").at(index), c, levels - 1 - i);
  }
}

at::Tensor UNet::forward(const at::Tensor& latents, const at::Tensor& timesteps,
                         const at::Tensor& text, const AddedConditions* added,
                         const UNetResiduals* residuals) const {
  const UNetContext context{time_.forward(timesteps, added, latents.scalar_type()), text};

  // Channels last: what convolutions are fastest on, and tokens become a view of it.
  at::Tensor x = latents.contiguous(at::MemoryFormat::ChannelsLast);
  x = conv_in_(config_.center_input_sample ? 2.0 * x - 1.0 : x);
  if (residuals && residuals->conv_in.defined()) x = x + residuals->conv_in;
  std::vector<at::Tensor> skips{x};
  for (const UNetDownBlock& block : down_blocks_) x = block.forward(x, context, skips);
  x = mid_block_.forward(x, context);
  if (residuals) add_to_skips(*residuals, skips, x);
  for (const UNetUpBlock& block : up_blocks_) x = block.forward(x, context, skips);
  return conv_out_(conv_norm_out_.with_silu(x));
}

}  // namespace ringlet::models
