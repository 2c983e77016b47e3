#include "ringlet/models/diffusion/controlnet.h"

#include <algorithm>

namespace ringlet::models {
namespace {

/// The file of a ControlNet does not speak of a way up; the U-Net's configuration needs one.
Json with_way_up(Json json, const std::string& where) {
  const auto down = json_require<std::vector<std::string>>(json, "down_block_types", where);
  std::vector<std::string> up;
  for (auto type = down.rbegin(); type != down.rend(); ++type)
    up.push_back(*type == "CrossAttnDownBlock2D" ? "CrossAttnUpBlock2D" : "UpBlock2D");
  json["up_block_types"] = up;
  return json;
}

}  // namespace

ControlNetConfig ControlNetConfig::from_json(const Json& json, const std::string& where) {
  ControlNetConfig c;
  c.unet = UNetConfig::from_json(with_way_up(json, where), where);
  c.embedding_channels =
      json_value(json, "conditioning_embedding_out_channels", c.embedding_channels, where);
  const auto positive = [](std::int64_t n) { return n > 0; };
  if (c.embedding_channels.empty() || !std::ranges::all_of(c.embedding_channels, positive))
    throw Error(ErrorCode::bad_format, where,
                "\"conditioning_embedding_out_channels\" must hold positive numbers");
  const auto order =
      json_value<std::string>(json, "controlnet_conditioning_channel_order", "rgb", where);
  if (order != "rgb" && order != "bgr")
    throw Error(ErrorCode::unsupported, where,
                "field \"controlnet_conditioning_channel_order\" is \"" + order + "\"",
                "ringlet supports rgb and bgr");
  c.blue_first = order == "bgr";
  c.pool_globally = json_value(json, "global_pool_conditions", false, where);
  return c;
}

ControlNet::ControlNet(const nn::WeightSource& s, const ControlNetConfig& c)
    : config_(c),
      conv_in_(s.at("conv_in"), c.unet.in_channels, c.unet.levels.front().channels,
               c.unet.conv_in_kernel, {.padding = (c.unet.conv_in_kernel - 1) / 2}),
      time_(s, c.unet),
      controlnet_cond_embedding_(s.at("controlnet_cond_embedding"), c.embedding_channels,
                                 c.unet.levels.front().channels),
      mid_block_(s.at("mid_block"), c.unet),
      controlnet_mid_block_(s.at("controlnet_mid_block"), c.unet.levels.back().channels,
                            c.unet.levels.back().channels, 1) {
  const nn::WeightSource zeros = s.at("controlnet_down_blocks");
  std::int64_t number = 0;
  const auto add_zero = [&](std::int64_t channels) {
    controlnet_down_blocks_.emplace_back(zeros.at(number++), channels, channels, 1);
  };
  add_zero(c.unet.levels.front().channels);
  for (std::size_t i = 0; i < c.unet.levels.size(); ++i) {
    down_blocks_.emplace_back(s.at("down_blocks").at(static_cast<std::int64_t>(i)), c.unet, i);
    const UNetLevel& level = c.unet.levels[i];
    const std::int64_t outputs = level.layers + (i + 1 < c.unet.levels.size() ? 1 : 0);
    for (std::int64_t n = 0; n < outputs; ++n) add_zero(level.channels);
  }
}

UNetResiduals ControlNet::forward(const at::Tensor& latents, const at::Tensor& timesteps,
                                  const at::Tensor& text, const at::Tensor& pictures,
                                  double strength, const AddedConditions* added) const {
  const UNetContext context{time_.forward(timesteps, added, latents.scalar_type()), text};
  const at::Tensor seen = config_.blue_first ? pictures.flip(1) : pictures;

  at::Tensor x = conv_in_(latents.contiguous(at::MemoryFormat::ChannelsLast)) +
                 controlnet_cond_embedding_.forward(seen);
  std::vector<at::Tensor> skips{x};
  for (const UNetDownBlock& block : down_blocks_) x = block.forward(x, context, skips);
  x = mid_block_.forward(x, context);

  const auto residual = [&](const nn::Conv2d& zero, const at::Tensor& features) {
    const at::Tensor out = zero(features) * strength;
    return config_.pool_globally ? out.mean({2, 3}, /*keepdim=*/true) : out;
  };
  UNetResiduals residuals;
  for (std::size_t i = 0; i < skips.size(); ++i)
    residuals.skips.push_back(residual(controlnet_down_blocks_[i], skips[i]));
  residuals.middle = residual(controlnet_mid_block_, x);
  return residuals;
}

}  // namespace ringlet::models
