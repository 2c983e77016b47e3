#include "ringlet/models/diffusion/transformer_2d.h"

#include <functional>
#include <vector>

#include "ringlet/nn/geglu.h"
#include "ringlet/nn/recomputed_inputs.h"

namespace ringlet::models {
namespace {

/// layers(norm(x)). The normed tokens follow from what the norm keeps, and are computed again there
/// for layers that need their input.
at::Tensor after(const nn::LayerNorm& norm, const at::Tensor& x,
                 const std::function<at::Tensor(const at::Tensor&)>& layers) {
  return nn::use_recomputed([&norm](const std::vector<at::Tensor>& in) { return norm(in.front()); },
                            {x}, layers);
}

}  // namespace

BasicTransformerBlock::BasicTransformerBlock(const nn::WeightSource& s,
                                             const Transformer2DConfig& c)
    : block_(s),
      only_cross_attention_(c.only_cross_attention),
      norm1_(s.at("norm1"), c.channels),
      attn1_(s.at("attn1"), {.query_width = c.channels,
                             .context_width = c.only_cross_attention ? c.context_width : c.channels,
                             .heads = c.heads,
                             .head_width = c.channels / c.heads,
                             .upcast = c.upcast_attention}),
      norm2_(s.at("norm2"), c.channels),
      attn2_(s.at("attn2"), {.query_width = c.channels,
                             .context_width = c.context_width,
                             .heads = c.heads,
                             .head_width = c.channels / c.heads,
                             .upcast = c.upcast_attention}),
      norm3_(s.at("norm3"), c.channels),
      ff_in_(s.at("ff").at("net").at(0).at("proj"), c.channels, 8 * c.channels),
      ff_out_(s.at("ff").at("net").at(2), 4 * c.channels, c.channels) {}

at::Tensor BasicTransformerBlock::feed_forward(const at::Tensor& x) const {
  const auto activated = [](const std::vector<at::Tensor>& in) { return nn::geglu(in.front()); };
  return nn::use_recomputed(activated, {ff_in_(x)}, ff_out_);
}

at::Tensor BasicTransformerBlock::forward(const at::Tensor& x, const at::Tensor& context) const {
  return block_.run([this](const auto& in) { return compute(in[0], in[1]); }, {x, context});
}

at::Tensor BasicTransformerBlock::compute(const at::Tensor& input,
                                          const at::Tensor& context) const {
  const auto attention = [&](const at::Tensor& normed) {
    return attn1_(normed, only_cross_attention_ ? context : normed);
  };
  const auto cross_attention = [&](const at::Tensor& normed) { return attn2_(normed, context); };
  at::Tensor x = input;
  x = x + after(norm1_, x, attention);
  x = x + after(norm2_, x, cross_attention);
  return x + after(norm3_, x, [this](const at::Tensor& normed) { return feed_forward(normed); });
}

Transformer2DModel::Transformer2DModel(const nn::WeightSource& s, const Transformer2DConfig& c)
    : norm_(s.at("norm"), c.groups, c.channels, 1e-6) {
  if (c.linear_projection) {
    linear_in_.emplace(s.at("proj_in"), c.channels, c.channels);
    linear_out_.emplace(s.at("proj_out"), c.channels, c.channels);
  } else {
    conv_in_.emplace(s.at("proj_in"), c.channels, c.channels, 1);
    conv_out_.emplace(s.at("proj_out"), c.channels, c.channels, 1);
  }
  for (std::int64_t i = 0; i < c.layers; ++i)
    transformer_blocks_.emplace_back(s.at("transformer_blocks").at(i), c);
}

at::Tensor Transformer2DModel::forward(const at::Tensor& x, const at::Tensor& context) const {
  const auto to_tokens = [](const at::Tensor& image) {  // [B, C, h, w] -> [B, h*w, C]
    return image.flatten(2).transpose(1, 2);
  };
  const auto to_image = [&x](const at::Tensor& tokens) {
    return tokens.transpose(1, 2).unflatten(2, {x.size(2), x.size(3)});
  };

  at::Tensor tokens = norm_(x);
  tokens = linear_in_ ? (*linear_in_)(to_tokens(tokens)) : to_tokens((*conv_in_)(tokens));
  for (const BasicTransformerBlock& block : transformer_blocks_)
    tokens = block.forward(tokens, context);
  return x + (linear_out_ ? to_image((*linear_out_)(tokens)) : (*conv_out_)(to_image(tokens)));
}

}  // namespace ringlet::models
