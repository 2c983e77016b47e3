#include "ringlet/models/text/t5_encoder.h"

#include <cmath>
#include <limits>

#include <ATen/ops/abs.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/clamp_max.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/log.h>
#include <ATen/ops/where.h>

#include "ringlet/core/error.h"
#include "ringlet/models/config_number.h"
#include "ringlet/nn/attention.h"
#include "ringlet/nn/gradient_checkpoint.h"
#include "ringlet/nn/half_range.h"

namespace ringlet::models {
namespace {

/// The table of words under the name that the file has it by; some have it twice.
nn::WeightSource words(const nn::WeightSource& source) {
  const nn::WeightSource shared = source.at("shared"), own = source.at("encoder.embed_tokens");
  return own.has("weight") && !shared.has("weight") ? own : shared;
}

}  // namespace

T5Config T5Config::from_json(const Json& json, const std::string& where) {
  T5Config c;
  const auto number = [&](const char* key, std::int64_t fallback) {
    return positive_number(json, key, fallback, where);
  };
  c.vocabulary = number("vocab_size", c.vocabulary);
  c.width = number("d_model", 512);
  c.inner_width = number("d_ff", 2048);
  c.layers = number("num_layers", 6);
  c.heads = number("num_heads", 8);
  c.head_width = number("d_kv", 64);
  c.buckets = number("relative_attention_num_buckets", c.buckets);
  c.farthest = number("relative_attention_max_distance", c.farthest);
  c.epsilon = json_value(json, "layer_norm_epsilon", c.epsilon, where);
  const auto kind = json_value<std::string>(json, "feed_forward_proj", "relu", where);
  if (kind != "gated-gelu")
    throw Error(ErrorCode::unsupported, where, "feed_forward_proj \"" + kind + "\" is not known",
                "ringlet supports \"gated-gelu\", as T5 1.1 has it in Stable Diffusion 3 and FLUX");
  if (c.buckets % 4 != 0 || c.farthest <= c.buckets / 4)
    throw Error(ErrorCode::bad_format, where,
                "\"relative_attention_num_buckets\" must be a multiple of 4 below four times "
                "\"relative_attention_max_distance\"");
  return c;
}

at::Tensor relative_position_bucket(const at::Tensor& distance, std::int64_t buckets,
                                    std::int64_t farthest) {
  const std::int64_t half = buckets / 2, exact = half / 2;
  const at::Tensor length = at::abs(distance);
  // In fp32 and in this order: the published buckets are what rounding makes of them.
  const double range = std::log(static_cast<double>(farthest) / static_cast<double>(exact));
  const at::Tensor far = (at::log(length.to(at::kFloat) / exact) / range * (half - exact))
                             .clamp_min(0.0)
                             .to(at::kLong) +
                         exact;
  const at::Tensor later = distance.gt(0).to(at::kLong) * half;
  return later + at::where(length.lt(exact), length, at::clamp_max(far, half - 1));
}

T5Encoder::Block::Block(const nn::WeightSource& s, const T5Config& c)
    : heads(c.heads),
      attention_norm(s.at("layer.0.layer_norm"), c.width, c.epsilon),
      q(s.at("layer.0.SelfAttention.q"), c.width, c.heads * c.head_width, /*bias=*/false),
      k(s.at("layer.0.SelfAttention.k"), c.width, c.heads * c.head_width, /*bias=*/false),
      v(s.at("layer.0.SelfAttention.v"), c.width, c.heads * c.head_width, /*bias=*/false),
      o(s.at("layer.0.SelfAttention.o"), c.heads * c.head_width, c.width, /*bias=*/false),
      feed_forward_norm(s.at("layer.1.layer_norm"), c.width, c.epsilon),
      wi_0(s.at("layer.1.DenseReluDense.wi_0"), c.width, c.inner_width, /*bias=*/false),
      wi_1(s.at("layer.1.DenseReluDense.wi_1"), c.width, c.inner_width, /*bias=*/false),
      wo(s.at("layer.1.DenseReluDense.wo"), c.inner_width, c.width, /*bias=*/false) {}

at::Tensor T5Encoder::Block::forward(const at::Tensor& x, const at::Tensor& bias) const {
  return nn::checkpointed([this](const auto& in) { return compute(in[0], in[1]); }, {x, bias});
}

at::Tensor T5Encoder::Block::compute(const at::Tensor& input, const at::Tensor& bias) const {
  const at::Tensor normed = attention_norm(input);
  const at::Tensor mixed = nn::biased_attention(q(normed), k(normed), v(normed), heads, bias);
  const at::Tensor x = nn::within_half_range(input + o(mixed));
  const at::Tensor y = feed_forward_norm(x);
  return nn::within_half_range(x + wo(at::gelu(wi_0(y), "tanh") * wi_1(y)));
}

T5Encoder::T5Encoder(const nn::WeightSource& s, const T5Config& c)
    : config_(c),
      shared_(words(s), c.vocabulary, c.width, /*deviation=*/1.0),
      relative_attention_bias_(
          s.at("encoder.block.0.layer.0.SelfAttention.relative_attention_bias"), c.buckets,
          c.heads),
      final_layer_norm_(s.at("encoder.final_layer_norm"), c.width, c.epsilon) {
  const nn::WeightSource shared = s.at("shared"), own = s.at("encoder.embed_tokens");
  if (shared.has("weight") && own.has("weight"))  // the same once more
    own.get("weight", {c.vocabulary, c.width});
  const nn::WeightSource blocks = s.at("encoder.block");
  for (std::int64_t i = 0; i < c.layers; ++i) blocks_.emplace_back(blocks.at(i), c);
}

at::Tensor T5Encoder::score_bias(const at::Tensor& ids, const at::Tensor& seen) const {
  const at::Tensor places = at::arange(ids.size(1), ids.options());
  const at::Tensor buckets = relative_position_bucket(places.unsqueeze(0) - places.unsqueeze(1),
                                                      config_.buckets, config_.farthest);
  const at::Tensor bias = relative_attention_bias_(buckets).permute({2, 0, 1}).unsqueeze(0);
  if (!seen.defined()) return bias;
  const at::Tensor hidden = seen.to(at::kBool).logical_not().unsqueeze(1).unsqueeze(1);
  return bias.masked_fill(hidden, -std::numeric_limits<double>::infinity());
}

at::Tensor T5Encoder::forward(const at::Tensor& ids, const at::Tensor& seen) const {
  const at::Tensor bias = score_bias(ids, seen);
  at::Tensor x = shared_(ids);
  for (const Block& block : blocks_) x = block.forward(x, bias);
  return final_layer_norm_(x);
}

}  // namespace ringlet::models
