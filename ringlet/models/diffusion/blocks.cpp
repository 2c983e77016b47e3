#include "ringlet/models/diffusion/blocks.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/upsample_nearest2d.h>

namespace ringlet::models {

ResnetBlock2D::ResnetBlock2D(const nn::WeightSource& s, const ResnetConfig& c)
    : block_(s),
      norm1_(s.at("norm1"), c.groups, c.in_channels, c.epsilon),
      conv1_(s.at("conv1"), c.in_channels, c.out_channels, 3, {.padding = 1}),
      norm2_(s.at("norm2"), c.groups, c.out_channels, c.epsilon),
      conv2_(s.at("conv2"), c.out_channels, c.out_channels, 3, {.padding = 1}) {
  if (c.time_channels > 0)
    time_emb_proj_.emplace(s.at("time_emb_proj"), c.time_channels, c.out_channels);
  if (c.in_channels != c.out_channels)
    conv_shortcut_.emplace(s.at("conv_shortcut"), c.in_channels, c.out_channels, 1);
}

at::Tensor ResnetBlock2D::forward(const at::Tensor& x, const at::Tensor& time_embedding) const {
  return block_.run([this](const auto& in) { return compute(in[0], in[1]); }, {x, time_embedding});
}

at::Tensor ResnetBlock2D::compute(const at::Tensor& x, const at::Tensor& time_embedding) const {
  at::Tensor h = conv1_(norm1_.with_silu(x));
  if (time_emb_proj_)
    h = h + (*time_emb_proj_)(at::silu(time_embedding)).unsqueeze(-1).unsqueeze(-1);
  h = conv2_(norm2_.with_silu(h));
  return (conv_shortcut_ ? (*conv_shortcut_)(x) : x) + h;
}

Downsample2D::Downsample2D(const nn::WeightSource& s, std::int64_t channels, std::int64_t padding)
    : pad_bottom_right_(padding == 0),
      conv_(s.at("conv"), channels, channels, 3, {.stride = 2, .padding = padding}) {}

at::Tensor Downsample2D::forward(const at::Tensor& x) const {
  return conv_(pad_bottom_right_ ? at::constant_pad_nd(x, {0, 1, 0, 1}) : x);
}

Upsample2D::Upsample2D(const nn::WeightSource& s, std::int64_t channels)
    : conv_(s.at("conv"), channels, channels, 3, {.padding = 1}) {}

at::Tensor Upsample2D::forward(const at::Tensor& x) const {
  return forward(x, 2 * x.size(2), 2 * x.size(3));
}

at::Tensor Upsample2D::forward(const at::Tensor& x, std::int64_t height, std::int64_t width) const {
  return conv_(at::upsample_nearest2d(x, {height, width}));
}

}  // namespace ringlet::models
