#include "ringlet/models/diffusion/vae.h"

#include <algorithm>

#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>

#include "ringlet/models/diffusion/tiling.h"

namespace ringlet::models {
namespace {

ResnetConfig resnet_config(const VaeConfig& c, std::int64_t in, std::int64_t out) {
  return {.in_channels = in, .out_channels = out, .groups = c.groups, .epsilon = 1e-6};
}

/// Applies `code` to the whole batch, or image by image.
template <class Function>
at::Tensor sliced(const at::Tensor& batch, bool slicing, const Function& code) {
  if (!slicing || batch.size(0) == 1) return code(batch);
  std::vector<at::Tensor> parts;
  for (const at::Tensor& image : batch.split(1)) parts.push_back(code(image));
  return at::cat(parts);
}

}  // namespace

VaeConfig VaeConfig::from_json(const Json& json, const std::string& where) {
  VaeConfig c;
  c.in_channels = json_value(json, "in_channels", c.in_channels, where);
  c.out_channels = json_value(json, "out_channels", c.out_channels, where);
  c.latent_channels = json_value(json, "latent_channels", c.latent_channels, where);
  c.block_out_channels =
      json_value(json, "block_out_channels", std::vector<std::int64_t>{64}, where);
  c.layers_per_block = json_value(json, "layers_per_block", std::int64_t{1}, where);
  c.groups = json_value(json, "norm_num_groups", c.groups, where);
  c.sample_size = json_value(json, "sample_size", std::int64_t{32}, where);
  c.scaling_factor = json_value(json, "scaling_factor", c.scaling_factor, where);
  c.shift_factor = json_value(json, "shift_factor", c.shift_factor, where);
  c.use_quant_conv = json_value(json, "use_quant_conv", true, where);
  c.use_post_quant_conv = json_value(json, "use_post_quant_conv", true, where);
  c.mid_block_attention = json_value(json, "mid_block_add_attention", true, where);

  if (json_value<std::string>(json, "act_fn", "silu", where) != "silu")
    throw Error(ErrorCode::unsupported, where, "field \"act_fn\" is not \"silu\"");
  for (const char* field : {"latents_mean", "latents_std"})
    if (json.contains(field) && !json[field].is_null())
      throw Error(ErrorCode::unsupported, where, std::string("field \"") + field + "\" is set",
                  "ringlet supports the autoencoders of Stable Diffusion 1, 2, XL and 3, and FLUX");
  const auto known_blocks = [&](const char* key, const std::string& type) {
    for (const std::string& name : json_value(json, key, std::vector<std::string>{}, where))
      if (name != type)
        throw Error(ErrorCode::unsupported, where, "block type \"" + name + "\" is not known");
  };
  known_blocks("down_block_types", "DownEncoderBlock2D");
  known_blocks("up_block_types", "UpDecoderBlock2D");
  const bool positive = std::ranges::all_of(c.block_out_channels, [&](std::int64_t channels) {
    return channels > 0 && c.groups > 0 && channels % c.groups == 0;
  });
  if (c.block_out_channels.empty() || !positive || c.layers_per_block <= 0 ||
      c.latent_channels <= 0)
    throw Error(ErrorCode::bad_format, where,
                "\"block_out_channels\" must be positive multiples of \"norm_num_groups\"");
  if (c.sample_size < c.downscale())
    throw Error(ErrorCode::bad_format, where, "\"sample_size\" is smaller than one latent");
  return c;
}

at::Tensor LatentDistribution::sample(const at::Tensor& noise) const {
  return mean + at::exp(0.5 * log_variance) * noise;
}

VaeAttention::VaeAttention(const nn::WeightSource& s, std::int64_t channels, std::int64_t groups)
    : group_norm_(s.at("group_norm"), groups, channels, 1e-6),
      attention_(s, {.query_width = channels,
                     .context_width = channels,
                     .heads = 1,
                     .head_width = channels,
                     .projection_bias = true}) {}

at::Tensor VaeAttention::forward(const at::Tensor& x) const {
  const at::Tensor tokens = group_norm_(x).flatten(2).transpose(1, 2);
  return x + attention_(tokens, tokens).transpose(1, 2).unflatten(2, {x.size(2), x.size(3)});
}

VaeMidBlock::VaeMidBlock(const nn::WeightSource& s, const VaeConfig& c)
    : resnet_in_(s.at("resnets").at(0),
                 resnet_config(c, c.block_out_channels.back(), c.block_out_channels.back())),
      resnet_out_(s.at("resnets").at(1),
                  resnet_config(c, c.block_out_channels.back(), c.block_out_channels.back())) {
  if (c.mid_block_attention)
    attention_.emplace(s.at("attentions").at(0), c.block_out_channels.back(), c.groups);
}

at::Tensor VaeMidBlock::forward(const at::Tensor& x) const {
  const at::Tensor h = resnet_in_.forward(x);
  return resnet_out_.forward(attention_ ? attention_->forward(h) : h);
}

VaeEncoder::VaeEncoder(const nn::WeightSource& s, const VaeConfig& c)
    : conv_in_(s.at("conv_in"), c.in_channels, c.block_out_channels.front(), 3, {.padding = 1}),
      mid_block_(s.at("mid_block"), c),
      conv_norm_out_(s.at("conv_norm_out"), c.groups, c.block_out_channels.back(), 1e-6),
      conv_out_(s.at("conv_out"), c.block_out_channels.back(), 2 * c.latent_channels, 3,
                {.padding = 1}) {
  std::int64_t in = c.block_out_channels.front();
  for (std::size_t i = 0; i < c.block_out_channels.size(); ++i) {
    const std::int64_t out = c.block_out_channels[i];
    const nn::WeightSource block = s.at("down_blocks").at(static_cast<std::int64_t>(i));
    DownBlock& down = down_blocks_.emplace_back();
    for (std::int64_t j = 0; j < c.layers_per_block; ++j, in = out)
      down.resnets.emplace_back(block.at("resnets").at(j), resnet_config(c, in, out));
    if (i + 1 < c.block_out_channels.size())
      down.downsampler.emplace(block.at("downsamplers").at(0), out, /*padding=*/0);
  }
}

at::Tensor VaeEncoder::forward(const at::Tensor& images) const {
  at::Tensor x = conv_in_(images);
  for (const DownBlock& block : down_blocks_) {
    for (const ResnetBlock2D& resnet : block.resnets) x = resnet.forward(x);
    if (block.downsampler) x = block.downsampler->forward(x);
  }
  return conv_out_(conv_norm_out_.with_silu(mid_block_.forward(x)));
}

VaeDecoder::VaeDecoder(const nn::WeightSource& s, const VaeConfig& c)
    : conv_in_(s.at("conv_in"), c.latent_channels, c.block_out_channels.back(), 3, {.padding = 1}),
      mid_block_(s.at("mid_block"), c),
      conv_norm_out_(s.at("conv_norm_out"), c.groups, c.block_out_channels.front(), 1e-6),
      conv_out_(s.at("conv_out"), c.block_out_channels.front(), c.out_channels, 3, {.padding = 1}) {
  const std::vector<std::int64_t> widths(c.block_out_channels.rbegin(),
                                         c.block_out_channels.rend());
  std::int64_t in = widths.front();
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const std::int64_t out = widths[i];
    const nn::WeightSource block = s.at("up_blocks").at(static_cast<std::int64_t>(i));
    UpBlock& up = up_blocks_.emplace_back();
    for (std::int64_t j = 0; j < c.layers_per_block + 1; ++j, in = out)
      up.resnets.emplace_back(block.at("resnets").at(j), resnet_config(c, in, out));
    if (i + 1 < widths.size()) up.upsampler.emplace(block.at("upsamplers").at(0), out);
  }
}

at::Tensor VaeDecoder::forward(const at::Tensor& z) const {
  at::Tensor x = mid_block_.forward(conv_in_(z));
  for (const UpBlock& block : up_blocks_) {
    for (const ResnetBlock2D& resnet : block.resnets) x = resnet.forward(x);
    if (block.upsampler) x = block.upsampler->forward(x);
  }
  return conv_out_(conv_norm_out_.with_silu(x));
}

AutoencoderKL::AutoencoderKL(const nn::WeightSource& s, const VaeConfig& c)
    : config_(c), encoder_(s.at("encoder"), c), decoder_(s.at("decoder"), c) {
  if (c.use_quant_conv)
    quant_conv_.emplace(s.at("quant_conv"), 2 * c.latent_channels, 2 * c.latent_channels, 1);
  if (c.use_post_quant_conv)
    post_quant_conv_.emplace(s.at("post_quant_conv"), c.latent_channels, c.latent_channels, 1);
}

at::Tensor AutoencoderKL::moments(const at::Tensor& images) const {
  const at::Tensor h = encoder_.forward(images.contiguous(at::MemoryFormat::ChannelsLast));
  return quant_conv_ ? (*quant_conv_)(h) : h;
}

at::Tensor AutoencoderKL::pixels(const at::Tensor& latents) const {
  const at::Tensor z = latents.contiguous(at::MemoryFormat::ChannelsLast);
  return decoder_.forward(post_quant_conv_ ? (*post_quant_conv_)(z) : z);
}

LatentDistribution AutoencoderKL::encode(const at::Tensor& images,
                                         const VaeOptions& options) const {
  const auto code = [this](const at::Tensor& x) { return moments(x); };
  const at::Tensor both = sliced(images, options.slicing, [&](const at::Tensor& x) {
    return options.tile > 0 ? tiled(x, options.tile, 1, config_.downscale(), code) : code(x);
  });
  const std::vector<at::Tensor> halves = both.chunk(2, 1);
  return {halves[0], at::clamp(halves[1], -30.0, 20.0)};
}

at::Tensor AutoencoderKL::decode(const at::Tensor& latents, const VaeOptions& options) const {
  const auto code = [this](const at::Tensor& z) { return pixels(z); };
  const std::int64_t tile = options.tile / config_.downscale();
  return sliced(latents, options.slicing, [&](const at::Tensor& z) {
    return tile > 0 ? tiled(z, tile, config_.downscale(), 1, code) : code(z);
  });
}

at::Tensor AutoencoderKL::scale(const at::Tensor& latents) const {
  return (latents - config_.shift_factor) * config_.scaling_factor;
}

at::Tensor AutoencoderKL::unscale(const at::Tensor& latents) const {
  return latents / config_.scaling_factor + config_.shift_factor;
}

}  // namespace ringlet::models
